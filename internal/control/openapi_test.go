package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"trysail/internal/api"
)

// TestOpenAPI: every path that control answers is described, and no other.
func TestOpenAPI(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	var described, answered []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	c := New(Options{Dir: t.TempDir(), Now: time.Now})
	for _, r := range c.routes() {
		answered = append(answered, r.pattern)
	}
	slices.Sort(described)
	slices.Sort(answered)
	if !slices.Equal(described, answered) {
		t.Errorf("described:\n%s\nanswered:\n%s", strings.Join(described, "\n"), strings.Join(answered, "\n"))
	}
}
