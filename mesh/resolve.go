package mesh

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	// resolvedFor is how long the answer to a host name is remembered, and
	// resolvedMax how many are. resolveWithin bounds one question.
	resolvedFor   = 10 * time.Second
	resolvedMax   = 1024
	resolveWithin = time.Second
)

// resolver turns host:port into addresses. Gossip asks for each packet, so it
// remembers the answers of DNS for a while.
type resolver struct {
	mu    sync.Mutex
	names map[string]resolved
}

type resolved struct {
	addr *net.UDPAddr
	err  error
	at   time.Time
}

func (r *resolver) resolve(ctx context.Context, addr string) (*net.UDPAddr, error) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return net.UDPAddrFromAddrPort(a), nil
	}
	now := time.Now()
	r.mu.Lock()
	answer, ok := r.names[addr]
	r.mu.Unlock()
	if ok && now.Sub(answer.at) < resolvedFor {
		return answer.addr, answer.err
	}
	answer = lookUp(ctx, addr, now)
	if answer.err != nil && ctx.Err() != nil {
		return nil, answer.err // of who asked, as when another path was faster, and not of the name
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names == nil || len(r.names) >= resolvedMax {
		r.names = make(map[string]resolved)
	}
	r.names[addr] = answer
	return answer.addr, answer.err
}

// remembered returns what is known of an address without asking DNS, the zero
// AddrPort if nothing is.
func (r *resolver) remembered(addr string) netip.AddrPort {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer := r.names[addr]; answer.addr != nil {
		return addrPort(answer.addr)
	}
	return netip.AddrPort{}
}

func lookUp(ctx context.Context, addr string, now time.Time) resolved {
	ctx, cancel := context.WithTimeout(ctx, resolveWithin)
	defer cancel()
	answer := resolved{at: now}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		answer.err = fmt.Errorf("mesh: address %q: %w", addr, err)
		return answer
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		answer.err = fmt.Errorf("mesh: address %q: port: %w", addr, err)
		return answer
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		answer.err = fmt.Errorf("mesh: address %q: %w", addr, err)
		return answer
	}
	answer.addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ips[0].Unmap(), uint16(number)))
	return answer
}

// addressed is an address of the configuration as a net.Addr.
type addressed string

func (addressed) Network() string  { return "udp" }
func (a addressed) String() string { return string(a) }
