// Package simdisk is a disk for tests in synctest bubbles: Pebble's filesystem
// in memory, and whatever can go wrong with one.
//
// Faults are values that are given to Disk.Inflict:
//
//	fault     from now on                                             until
//	Full      writes beyond a number of bytes end with ENOSPC         Heal
//	FailSync  syncs end with EIO                                      Heal
//	FailRead  reads end with EIO                                      Heal
//	Stall     writes, syncs and changes of folders wait               its time or Heal
//	Slow      each sync takes a while                                 Heal
//	PowerOff  all writes after so many more end with EIO              PowerLoss
//	Flip      bits of a file are others                               for good
//	Truncate  a file has lost its end                                 for good
//	Tear      of the last write to a file only a part is there        for good
//
// Two methods make another disk of one: PowerLoss what is left of it when the
// power goes, Copy an old copy that a test may put back later.
//
// What a disk does to whom depends on its seed alone, given the same calls.
// Waiting is done in package time, so it costs nothing in a bubble.
package simdisk
