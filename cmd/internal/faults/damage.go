package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// This file damages what a node has on disk. It knows the layout of the folder (replication/dir.go) and that
// a file of the Raft log is allocated in advance, with zeros behind what is used.

// raftLogs returns the newest file of each group's Raft log, by group.
func raftLogs(dir string) ([]string, error) {
	groups, err := filepath.Glob(filepath.Join(dir, "group-*"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, g := range groups {
		files, err := filepath.Glob(filepath.Join(g, "*.wal"))
		if err != nil {
			return nil, err
		}
		if len(files) > 0 {
			out = append(out, slices.Max(files)) // their names begin with the first index
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no Raft log in %s", dir)
	}
	return out, nil
}

// usedBytes returns how much of a file of a log is used.
func usedBytes(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return int64(len(bytes.TrimRight(b, "\x00"))), nil
}

// flipByte changes one byte of a file, in place.
func flipByte(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] ^= 0x10
		_, err = f.WriteAt(b[:], at)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// flipWritten flips a byte in each log that has grown since it was from[k] bytes long: in the first entry that is too
// long for a leader's memory. It returns those that were damaged; it is an error if none was.
func flipWritten(logs []string, from []int64) (flipped []string, err error) {
	for k, log := range logs {
		to, err := usedBytes(log)
		if err != nil {
			return nil, err
		}
		if to <= from[k]+8<<10 {
			continue
		}
		if err := flipByte(log, from[k]+4<<10); err != nil {
			return nil, err
		}
		flipped = append(flipped, log)
	}
	if len(flipped) == 0 {
		return nil, fmt.Errorf("nothing was written that could be damaged: %v", logs)
	}
	return flipped, nil
}

// cutSnapshots cuts the newest snapshot of each group to half its length, or all. It is an error if there is none.
func cutSnapshots(dir string, all bool) (cut int, err error) {
	files, err := snapshotFiles(dir)
	if err != nil {
		return 0, err
	}
	for _, of := range files {
		if !all {
			of = of[:min(1, len(of))]
		}
		for _, f := range of {
			if err := halve(f); err != nil {
				return cut, err
			}
			cut++
		}
	}
	if cut == 0 {
		return 0, fmt.Errorf("there is no snapshot in %s that could be cut short", dir)
	}
	return cut, nil
}

// snapshotFiles returns the states of a group's snapshots, by group, the newest first.
func snapshotFiles(dir string) ([][]string, error) {
	groups, err := filepath.Glob(filepath.Join(dir, "group-*"))
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, g := range groups {
		files, err := filepath.Glob(filepath.Join(g, "snapshots", "*", "state.bin"))
		if err != nil {
			return nil, err
		}
		slices.Sort(files) // their folders begin with term and index
		slices.Reverse(files)
		out = append(out, files)
	}
	return out, nil
}

// halve cuts a file to half its length.
func halve(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()/2)
}
