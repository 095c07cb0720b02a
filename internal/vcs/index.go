package vcs

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"
)

// steady takes out of a git index what differs in each checkout of the same revision:
// for each file the change time, the fractions of the modification time, device, inode and owner. Git does not
// look at them where core.checkStat is minimal and core.trustctime is false.
//
// The format is in git's Documentation/gitformat-index.txt, versions 2 and 3.
func steady(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for _, h := range []hash.Hash{sha1.New(), sha256.New()} {
		n := len(data) - h.Size()
		if n < 12 {
			continue
		}
		if h.Write(data[:n]); !bytes.Equal(h.Sum(nil), data[n:]) {
			continue
		}
		if err := clearEntries(data[:n], h.Size()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		h.Reset()
		h.Write(data[:n])
		return os.WriteFile(name, h.Sum(data[:n]), 0o666)
	}
	return errors.New(name + " is not a git index")
}

func clearEntries(data []byte, sum int) error {
	const stat = 40 // ctime, mtime, dev, ino, mode, uid, gid, size
	if string(data[:4]) != "DIRC" {
		return errors.New("not a git index")
	}
	version := binary.BigEndian.Uint32(data[4:])
	if version != 2 && version != 3 {
		return fmt.Errorf("version %d of the index is not known", version)
	}
	at := 12
	for range binary.BigEndian.Uint32(data[8:]) {
		head := stat + sum + 2
		if at+head > len(data) {
			return errors.New("the index is cut off")
		}
		clear(data[at : at+8])     // ctime
		clear(data[at+12 : at+24]) // fractions of mtime, dev, ino
		clear(data[at+28 : at+36]) // uid, gid
		if version == 3 && data[at+head-2]&0x40 != 0 {
			head += 2 // extended flags
		}
		if at+head > len(data) {
			return errors.New("the index is cut off")
		}
		end := bytes.IndexByte(data[at+head:], 0)
		if end < 0 {
			return errors.New("the index is cut off")
		}
		// One to eight zero bytes end an entry at a multiple of eight.
		at += (head + end + 8) &^ 7
	}
	return nil
}
