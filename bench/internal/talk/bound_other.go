//go:build !unix

package talk

import "errors"

func bound(uintptr, int) error { return errors.ErrUnsupported }
