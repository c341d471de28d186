//go:build !race

package main

// atOnce is how many tests run at one time. They wait for most of it, for what died to
// be noticed, so more than there are processors.
const atOnce = "8"

// underRace is nothing without the race detector.
const underRace = 1
