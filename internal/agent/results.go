package agent

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"trysail/internal/build"
)

const (
	maxResults = 64 << 20 // bytes of one file
	maxFailing = 1000     // names; what fails more is broken as a whole
)

// junit reads one file of test results in JUnit's format: how many tests there
// are and which failed. Suites may hold suites. A file that ends too early, or
// holds no test, is an error: results that cannot be read are not good ones.
func junit(r io.Reader) (tests int, failing []string, err error) {
	d := xml.NewDecoder(r)
	name, depth, bad := "", 0, false
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
			switch t.Name.Local {
			case "testcase":
				name, bad = testName(t.Attr), false
			case "failure", "error":
				bad = true
			}
		case xml.EndElement:
			depth--
			if t.Name.Local == "testcase" {
				tests++
				if bad && !slices.Contains(failing, name) {
					failing = append(failing, name)
				}
			}
		}
	}
	if depth != 0 || tests == 0 {
		return 0, nil, errors.New("it holds no test")
	}
	return tests, failing, nil
}

func testName(attrs []xml.Attr) string {
	var class, name string
	for _, a := range attrs {
		switch a.Name.Local {
		case "classname":
			class = a.Value
		case "name":
			name = a.Value
		}
	}
	if class != "" {
		name = class + "." + name
	}
	return strings.Join(strings.Fields(name), " ")
}

// results reads what the globs match below a directory.
func results(dir string, globs []string) (tests int, failing []string, err error) {
	files, unmatched, err := build.Outputs(dir, globs)
	if err != nil {
		return 0, nil, err
	}
	if len(unmatched) > 0 {
		return 0, nil, fmt.Errorf("no test results match %s", strings.Join(unmatched, ", "))
	}
	for _, o := range files {
		f, err := os.Open(filepath.Join(dir, o.Path))
		if err != nil {
			return 0, nil, err
		}
		n, bad, err := junit(io.LimitReader(f, maxResults))
		f.Close()
		if err != nil {
			return 0, nil, fmt.Errorf("test results %s: %w", o.Path, err)
		}
		tests += n
		failing = append(failing, bad...)
	}
	slices.Sort(failing)
	failing = slices.Compact(failing)
	if len(failing) > maxFailing {
		return 0, nil, fmt.Errorf("%d tests failed: that is no test that a person can waive", len(failing))
	}
	return tests, failing, nil
}
