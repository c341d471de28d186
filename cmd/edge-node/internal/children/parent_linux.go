package children

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the system kill the child when this process dies,
// however it does.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
