package kafkatest

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
)

// A broker's start is mostly the JVM loading and verifying some ten thousand
// classes. A class data sharing archive holds them ready and halves it (measured
// for 4.3.1: from 3.0 to 1.7 s of processor time).
//
// The JVM writes one when it ends in order, if told so at its start. The first
// shared cluster of a version on a machine does that; it costs three seconds
// when the test binary ends, once. All later brokers use it. The JVM itself
// checks that the archive fits it and the jars, and does without if not.

// archiveFile returns where the archive of a JVM and a folder of jars is kept:
// beside the jars, under a name that changes with the JVM.
func archiveFile(java, jars string) string {
	real, err := filepath.EvalSymlinks(java)
	if err != nil {
		real = java
	}
	h := fnv.New32a()
	fmt.Fprint(h, runtime.GOARCH, jvmFlags, real)
	if info, err := os.Stat(real); err == nil {
		fmt.Fprint(h, info.Size(), info.ModTime().UnixNano())
	}
	return filepath.Join(jars, fmt.Sprintf("broker-%08x.jsa", h.Sum32()))
}

// archiveFlags returns the JVM flags that use the archive if there is one; else,
// if the cluster may make one (cluster.training), those that write it into a
// file of the cluster's own folder.
func (k *cluster) archiveFlags() []string {
	if k.source.archive == "" {
		return nil
	}
	if _, err := os.Stat(k.source.archive); err == nil {
		return []string{"-XX:SharedArchiveFile=" + k.source.archive}
	}
	if k.training {
		return []string{"-XX:ArchiveClassesAtExit=" + k.newArchive()}
	}
	return nil
}

// newArchive is on the file system of the archive, so that it can be renamed.
func (k *cluster) newArchive() string {
	return fmt.Sprintf("%s.%d", k.source.archive, os.Getpid())
}

// finish ends a shared cluster: in order if its JVM has an archive to write,
// else at once.
func (k *cluster) finish() {
	if k.training && k.source.archive != "" {
		if _, err := os.Stat(k.source.archive); err != nil {
			for _, n := range k.nodes {
				if p := k.process(n); p != nil && p.stop(stopGrace) {
					// A test binary that was quicker has made as good a one; and
					// one that is missing costs time, nothing else.
					_ = os.Rename(k.newArchive(), k.source.archive)
				}
			}
		}
		_ = os.Remove(k.newArchive())
	}
	k.kill()
}
