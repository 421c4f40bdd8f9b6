// Command alloy-syntax parses Alloy configurations and says where one is not well-formed. It knows the language, not the components:
// an argument that a component does not have is found by Alloy itself, when it starts.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/alloy/syntax/parser"
)

func main() {
	failed := false
	for _, path := range os.Args[1:] {
		text, err := os.ReadFile(path)
		if err == nil {
			_, err = parser.ParseFile(path, text)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
