package api

import (
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3gen"

	"trysail/release"
)

// bodies are the types that requests and answers are made of, by their names in
// the description.
func bodies() map[string]any {
	return map[string]any{
		"Problem": Problem{}, "Blobs": Blobs{}, "JoinControl": JoinControl{}, "ControlJoined": ControlJoined{}, "ControlStatus": ControlStatus{}, "Enrol": Enrol{}, "Enrolled": Enrolled{}, "Terms": Terms{}, "Renew": Renew{}, "Beat": Beat{}, "BeatAnswer": BeatAnswer{}, "Start": Start{}, "SetMachine": SetMachine{}, "Checked": Checked{},
		"Told": Told{}, "Decide": Decide{}, "Step": Step{}, "Reason": Reason{}, "Ship": Ship{}, "Status": Status{}, "Listed": Listed{}, "Machine": MachineStatus{},
		"Checkpoint": Checkpoint{}, "LogSize": LogSize{}, "LogDigest": LogDigest{}, "Token": Token{}, "Revoke": Revoke{}, "TokenMade": TokenMade{}, "Excepted": release.Excepted{}, "Amend": Amend{}, "Replay": Replay{}, "Abort": Abort{}, "Agreed": release.Agreed{},
		"Report": struct {
			Release string         `json:"release"`
			Report  release.Report `json:"report"`
		}{}, "Appended": struct {
			Event int64 `json:"event"`
		}{},
	}
}

// TestOpenAPI: the description is valid, and its schemas are the types of this
// package. With -update its schemas are written anew; the paths are written by hand.
func TestOpenAPI(t *testing.T) {
	schemas := map[string]any{}
	for name, v := range bodies() {
		ref, err := openapi3gen.NewSchemaRefForValue(v, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := json.Marshal(ref.Value)
		if err != nil {
			t.Fatal(err)
		}
		var plain any
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatal(err)
		}
		schemas[name] = plain
	}
	const mark = "\n  schemas:\n"
	head, _, ok := strings.Cut(string(OpenAPI), mark)
	if !ok {
		t.Fatal("the description has no schemas")
	}
	var b strings.Builder
	b.WriteString(head + mark)
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		line, err := json.Marshal(schemas[name]) // YAML too
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("    " + name + ": " + string(line) + "\n")
	}
	if *update {
		if err := os.WriteFile("openapi.yaml", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if b.String() != string(OpenAPI) {
		t.Error("the schemas are not the types of this package: go test ./internal/api -run TestOpenAPI -update")
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Error(err)
	}
}

var update = flag.Bool("update", false, "write openapi.yaml anew")
