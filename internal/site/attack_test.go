package site

import (
	"encoding/json"
	"fmt"
	"net"
	"net/rpc/jsonrpc"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"trysail/internal/lab"
)

// says is the machine of a host that answers once.
func says(t *testing.T, result string) *remote {
	here, there := net.Pipe()
	go func() {
		defer there.Close()
		var q struct {
			ID uint64 `json:"id"`
		}
		if err := json.NewDecoder(there).Decode(&q); err == nil {
			fmt.Fprintf(there, `{"id":%d,"error":null,"result":%s}`, q.ID, result)
		}
	}()
	m := &remote{target: Target{SSH: "root@10.0.0.6"}, said: &tail{most: 4096}, client: jsonrpc.NewClient(here)}
	t.Cleanup(func() { here.Close() })
	return m
}

// TestAttackHostAnswersWithoutEnd: root on a host of a drill answers with as many
// empty files, or things that are left, as the connection lets through. In the memory of the
// machine from which the drill is run they would be many times as large.
func TestAttackHostAnswersWithoutEnd(t *testing.T) {
	const megabytes = 24
	for _, x := range []struct {
		what, value string
		answer      any
	}{
		{"Ledger", "{}", &[]lab.File{}},
		{"Close", `""`, &[]string{}},
	} {
		list := "[" + strings.TrimSuffix(strings.Repeat(x.value+",", megabytes<<20/(len(x.value)+1)), ",") + "]"
		m := says(t, list)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := m.call(x.what, None{}, x.answer)
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) >> 20; err == nil || got > 15*megabytes {
			t.Errorf("an answer of %d MB to %s costs %d MB: %v", megabytes, x.what, got, err)
		}
	}
	// What a worker says is read.
	left, files := []string{}, []lab.File{}
	if err := says(t, `["mount /x","process 7"]`).call("Close", None{}, &left); err != nil || len(left) != 2 || left[1] != "process 7" {
		t.Errorf("%q %v", left, err)
	}
	want := []lab.File{{Name: "release.4.2", Data: []byte("{}\n")}}
	text, err := json.Marshal(want)
	if err == nil {
		err = says(t, string(text)).call("Ledger", None{}, &files)
	}
	if err != nil || !reflect.DeepEqual(files, want) {
		t.Errorf("%+v %v", files, err)
	}
	if err := says(t, "{}").call("Beat", None{}, &None{}); err != nil {
		t.Error(err)
	}
	if err := says(t, `"one"`).call("Close", None{}, &left); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a text is taken for a list: %v", err)
	}
}
