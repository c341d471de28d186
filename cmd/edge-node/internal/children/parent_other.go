//go:build !linux

package children

import "os/exec"

// dieWithParent can do nothing here: children end with Run alone.
func dieWithParent(*exec.Cmd) {}
