package node

import (
	"runtime/debug"
	"strconv"
	"sync"
)

// version is set by the linker in releases (-X …/node.version=v1.2.3).
var version = ""

// Version returns the version of this build: the release's, or the commit that it was made from.
var Version = sync.OnceValue(func() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
})

func partitionLabel(p int32) string { return strconv.Itoa(int(p)) }
