package machine

import (
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// alive tells whether a child of ours still runs.
func alive(cmd *exec.Cmd) bool {
	var ws unix.WaitStatus
	pid, err := unix.Wait4(cmd.Process.Pid, &ws, unix.WNOHANG, nil)
	return err == nil && pid == 0
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func gone(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	for range 500 {
		if !alive(cmd) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the guard did not kill what it watched")
}

// TestGuard: what is watched dies at the deadline and when its owner is gone;
// what was forgotten lives.
func TestGuard(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(orders chan guardOrder)
	}{
		{"deadline", func(orders chan guardOrder) { orders <- guardOrder{Until: int64(BootTime() + 200*time.Millisecond)} }},
		{"a deadline that has passed", func(orders chan guardOrder) { orders <- guardOrder{Until: 1} }},
		{"owner gone", func(orders chan guardOrder) { close(orders) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dies, lives := sleeper(t), sleeper(t)
			orders := make(chan guardOrder)
			done := make(chan int, 1)
			go func() { done <- guard(orders) }()
			orders <- guardOrder{Until: int64(BootTime() + time.Hour)}
			orders <- guardOrder{ID: 1, PID: dies.Process.Pid}
			orders <- guardOrder{ID: 2, PID: lives.Process.Pid}
			orders <- guardOrder{ID: 3, Cgroup: "/sys/fs/cgroup/none"} // it has ended already
			orders <- guardOrder{ID: 2}
			if !alive(dies) || !alive(lives) {
				t.Fatal("killed before the deadline")
			}
			c.end(orders)
			gone(t, dies)
			if !alive(lives) {
				t.Error("what was forgotten was killed")
			}
			if c.name != "owner gone" {
				close(orders)
			}
			if status := <-done; status != 0 {
				t.Errorf("the guard ended with %d", status)
			}
		})
	}
}

// A deadline that is put off in time never falls.
func TestGuardRenewed(t *testing.T) {
	child := sleeper(t)
	orders := make(chan guardOrder)
	done := make(chan int, 1)
	go func() { done <- guard(orders) }()
	orders <- guardOrder{ID: 1, PID: child.Process.Pid}
	for range 20 {
		orders <- guardOrder{Until: int64(BootTime() + time.Second)}
		time.Sleep(50 * time.Millisecond)
	}
	if !alive(child) {
		t.Error("killed although the deadline was put off")
	}
	close(orders)
	<-done
	gone(t, child)
}
