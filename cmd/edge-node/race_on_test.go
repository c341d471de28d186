//go:build race

package main

// atOnce is how many tests run at one time. Under the race detector they do not wait
// for most of it any more.
const atOnce = "2"

// underRace is how much more memory the race detector may take.
const underRace = 4
