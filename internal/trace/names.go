package trace

import (
	"path"
	"strings"
)

// maxLinks is the kernel's own limit on links in one look-up.
const maxLinks = 40

// Names lists every place that a look-up of p depends on: each symbolic link on
// the way by its physical path, and last the physical path itself. ".." goes to
// the physical parent, as the kernel does it, not to the written one.
func Names(p string, readlink func(string) (target string, isLink bool)) []string {
	var links []string
	cur := "/"
	rest := strings.Split(p, "/")
	for followed := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			cur = path.Dir(cur)
			continue
		}
		next := path.Join(cur, part)
		target, isLink := readlink(next)
		if !isLink {
			cur = next
			continue
		}
		links = append(links, next)
		if followed++; followed > maxLinks {
			return links
		}
		if strings.HasPrefix(target, "/") {
			cur = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return append(links, cur)
}
