package main

import (
	"os"
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	target := os.Getenv("TIDINGS_TEST_TARGET")
	if target == "" {
		t.Skip("TIDINGS_TEST_TARGET names no running service")
	}
	var out strings.Builder
	if err := follow(t.Context(), target, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if first := lines[0]; !strings.HasPrefix(first, "TASK_STATE_") {
		t.Errorf("the first line is %q, want a state", first)
	}
	if last, want := lines[len(lines)-1], "TASK_STATE_SUCCEEDED 3 of 3"; last != want {
		t.Errorf("the last line is %q, want %q", last, want)
	}
}
