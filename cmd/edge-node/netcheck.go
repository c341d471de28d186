package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/mesh"
)

// netcheckMax bounds the nodes that are asked.
const netcheckMax = 64

// clockOff is from where on the clock of this machine is worth a word: messages carry
// the time of their room's leader, and tokens end by the clock.
const clockOff = time.Second

// pathCheck is what one protocol does on the way to a node.
type pathCheck struct {
	Works bool    `json:"works"`
	Error string  `json:"error,omitempty"`
	Seen  string  `json:"seen,omitempty"` // the address that the node sees
	RTT   float64 `json:"rtt_ms,omitempty"`
	Clock float64 `json:"clock_ms"` // how much the node's clock is ahead
}

// nodeCheck is what gets through to one node.
type nodeCheck struct {
	Addr   string    `json:"addr"`
	Node   string    `json:"node,omitempty"`
	Region string    `json:"region,omitempty"`
	UDP    pathCheck `json:"udp"`
	TCP    pathCheck `json:"tcp"`
}

// netCheck is all that netcheck found out.
type netCheck struct {
	Nodes []nodeCheck `json:"nodes"`
	// Regions are the least round trips to regions, in ms.
	Regions map[string]float64 `json:"regions_ms"`
	Advice  []string           `json:"advice"`
}

func (a *app) netcheckCommand() *cobra.Command {
	proxy := ""
	cmd := &cobra.Command{
		Use: "netcheck [ADDR...]", Short: "Say what gets through from here to nodes of a mesh", GroupID: groupMesh,
		Long: `Say what gets through from this machine to nodes: UDP (QUIC), or only TLS on TCP; the
address that they see, the round trip to each region, and how far their clocks are from
this one. ADDR is the host:port of any node, also of a mesh that this machine is not part
of yet; without one it asks all nodes of the mesh. Where neither works to any node the exit
status is 1.

A node links over UDP where it can, and over TCP where UDP is silent: nothing is to be set
for that. It is to be told if nobody can dial it (--reachability outbound), and if there is a
proxy (--proxy).`,
		Example: "  edge-node netcheck\n  edge-node netcheck 10.0.0.1:7400 --json\n  edge-node netcheck chat.example.org:443 --proxy http://10.0.0.9:3128",
		RunE: func(cmd *cobra.Command, addrs []string) error {
			if len(addrs) == 0 {
				mesh, err := a.mesh()
				if err != nil {
					return err
				}
				addrs = addrsOf(mesh)
			}
			for _, addr := range addrs {
				if !isAddr(addr) {
					return usagef("%q is not host:port", addr)
				}
			}
			if len(addrs) > netcheckMax {
				fmt.Fprintf(cmd.ErrOrStderr(), "only the first %d of %d addresses are asked\n", netcheckMax, len(addrs))
			}
			check, err := netcheck(cmd.Context(), addrs[:min(len(addrs), netcheckMax)], proxy)
			if err != nil {
				return err
			}
			if err := a.showNetCheck(check); err != nil {
				return err
			}
			if len(check.Regions) == 0 {
				return errors.New("no node answers: is one running there, and does a firewall let UDP or TCP to its port out?")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&proxy, "proxy", "", "http://host:port of the HTTP proxy to go through, by TCP")
	return cmd
}

func addrsOf(mesh *home.Context) (addrs []string) {
	for _, n := range mesh.Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

// netcheck asks nodes, all at once.
func netcheck(ctx context.Context, addrs []string, proxy string) (*netCheck, error) {
	dial, err := dialTCP(proxy)
	if err != nil {
		return nil, err
	}
	check := &netCheck{Nodes: make([]nodeCheck, len(addrs)), Regions: make(map[string]float64), Advice: []string{}}
	var all sync.WaitGroup
	for i, addr := range addrs {
		n := &check.Nodes[i]
		n.Addr = addr
		var udp, tcp mesh.Probed
		var both sync.WaitGroup
		both.Go(func() { udp, n.UDP = checked(probeUDP(ctx, addr)) })
		both.Go(func() { tcp, n.TCP = checked(mesh.ProbeTCP(ctx, dial, addr)) })
		all.Go(func() {
			both.Wait()
			n.Node, n.Region = cmp.Or(udp.Node, tcp.Node), cmp.Or(udp.Region, tcp.Region)
		})
	}
	all.Wait()
	slices.SortStableFunc(check.Nodes, func(a, b nodeCheck) int { return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Node, b.Node)) })
	for _, n := range check.Nodes {
		if best, known := check.Regions[n.Region]; n.Region != "" && (!known || n.best().RTT < best) {
			check.Regions[n.Region] = n.best().RTT
		}
	}
	check.Advice = append(check.Advice, check.advise(ownIPs())...)
	return check, nil
}

// ownIPs are the addresses of this machine.
func ownIPs() (own []string) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // then nothing is said of a NAT
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			own = append(own, n.IP.String())
		}
	}
	return own
}

func probeUDP(ctx context.Context, addr string) (mesh.Probed, error) {
	conn, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return mesh.Probed{}, err
	}
	defer conn.Close()
	return mesh.ProbeUDP(ctx, conn, addr)
}

func checked(p mesh.Probed, err error) (mesh.Probed, pathCheck) {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("nothing came back in time")
	}
	if err != nil {
		return mesh.Probed{}, pathCheck{Error: err.Error()}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return p, pathCheck{Works: true, Seen: p.Seen, RTT: ms(p.RTT), Clock: ms(p.Clock)}
}

// best is what works of the two, UDP before TCP.
func (n nodeCheck) best() pathCheck {
	if n.UDP.Works {
		return n.UDP
	}
	return n.TCP
}

// advise says what follows from what was found, for a machine with these addresses.
func (c *netCheck) advise(own []string) (advice []string) {
	answered, udp, tcp, off, outside := 0, 0, 0, 0.0, ""
	for _, n := range c.Nodes {
		best := n.best()
		if !best.Works {
			continue
		}
		answered++
		if n.UDP.Works {
			udp++
		}
		if n.TCP.Works {
			tcp++
		}
		if answered == 1 || math.Abs(best.Clock) < math.Abs(off) {
			off = best.Clock // of the node that agrees most: one clock that is wrong may be theirs
		}
		if host, _, err := net.SplitHostPort(best.Seen); err == nil && len(own) > 0 && !slices.Contains(own, host) {
			outside = host
		}
	}
	switch {
	case answered == 0:
		return nil
	case udp == 0:
		advice = append(advice, "UDP does not get through: links run over TLS on TCP, and so must clients. If a firewall is yours, let UDP to the nodes' port through.")
	case udp < answered:
		advice = append(advice, fmt.Sprintf("UDP gets through to %d of %d nodes: links to the others run over TLS on TCP.", udp, answered))
	}
	if tcp < answered {
		advice = append(advice, fmt.Sprintf("TCP gets through to %d of %d nodes: there is no other way to the others if UDP is dropped one day.", tcp, answered))
	}
	if outside != "" {
		advice = append(advice, fmt.Sprintf("This machine is seen as %s, which is none of its addresses: it is behind a NAT or a proxy. A node here needs --reachability outbound, unless its port is forwarded.", outside))
	}
	if time.Duration(off*float64(time.Millisecond)).Abs() >= clockOff {
		advice = append(advice, fmt.Sprintf("The clock of this machine is off by %.1f s: set it, for certificates and tokens are good for a time.", -off/1000))
	}
	return advice
}

func (a *app) showNetCheck(c *netCheck) error {
	if a.json {
		return a.printJSON(c)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tREGION\tADDR\tUDP\tTCP\tSEEN AS\tCLOCK")
	for _, n := range c.Nodes {
		clock := "-"
		if n.best().Works {
			clock = fmt.Sprintf("%+.1f ms", n.best().Clock)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(n.Node, "-"), cmp.Or(n.Region, "-"), n.Addr, n.UDP, n.TCP, cmp.Or(n.best().Seen, "-"), clock)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(a.stdout, c.words())
	return err
}

// words says why what does not work does not, and what follows.
func (c *netCheck) words() string {
	var b strings.Builder
	for _, n := range c.Nodes {
		for _, p := range []struct {
			name string
			pathCheck
		}{{"UDP", n.UDP}, {"TCP", n.TCP}} {
			if !p.Works {
				fmt.Fprintf(&b, "\n%s to %s: %s", p.name, n.Addr, p.Error)
			}
		}
	}
	for _, text := range c.Advice {
		fmt.Fprintf(&b, "\n%s", text)
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

func (p pathCheck) String() string {
	if !p.Works {
		return "no"
	}
	return fmt.Sprintf("%.1f ms", p.RTT)
}
