//go:build race

package edge

const underRace = true
