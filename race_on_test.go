//go:build race

package starling_test

// underRace: the race detector makes all ten times slower. It finds what is not ordered
// in whatever round that happens, so that it needs fewer of them, and less load.
const underRace = true
