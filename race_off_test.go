//go:build !race

package starling_test

const underRace = false
