//go:build race

package main

// atOnce is how many tests run at one time. Under the race detector they do not wait
// for most of it any more.
const atOnce = "2"
