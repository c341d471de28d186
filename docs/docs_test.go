// Package docs_test holds the documents to what they say: commands are run as
// they are written, and what the references list is compared with the code.
package docs_test

import (
	"os"
	"testing"
)

// TestMain lets the tests see files as readers do, from the top of the house.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	m.Run()
}
