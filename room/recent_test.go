package room

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestRecentNeverCallsAnOldKeyNew: whatever the order of keys.
func TestRecentNeverCallsAnOldKeyNew(t *testing.T) {
	for name, key := range map[string]func(r *rand.Rand, i int) int{
		"rising":  func(_ *rand.Rand, i int) int { return i },
		"falling": func(_ *rand.Rand, i int) int { return 5000 - i },
		"near":    func(r *rand.Rand, i int) int { return i + r.IntN(40) },
		"far":     func(r *rand.Rand, i int) int { return r.IntN(5000) },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var known recent
			all := map[string]bool{}
			looks := 0
			for i := range 5000 {
				k := recentKey("user", fmt.Sprintf("%08d", key(r, i)))
				if known.new([]byte(k)) {
					if all[k] {
						t.Fatalf("%q is called new and is not", k)
					}
				} else {
					looks++
				}
				known.add(k, i%7 > 0 || len(known.keys) > 10)
				all[k] = true
				if len(known.keys) > recentKeys {
					t.Fatalf("%d keys", len(known.keys))
				}
			}
			t.Logf("%d looks into the store for %d keys, %d of them different", looks, 5000, len(all))
			if repeated := 5000 - len(all); (name == "rising" || name == "near") && looks > repeated+50 {
				t.Errorf("%d looks for %d keys that were there", looks, repeated)
			}
		})
	}
}
