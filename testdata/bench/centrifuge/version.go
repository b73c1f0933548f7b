package main

import "runtime/debug"

// libraryVersion is that of the centrifuge library in this program.
func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/centrifugal/centrifuge" {
				return m.Version
			}
		}
	}
	return "unknown"
}
