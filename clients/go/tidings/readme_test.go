package tidings_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// The program in the README prints what becomes of a task.
func TestReadme(t *testing.T) {
	client := running(t)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, _ = strings.Cut(program, "```\n")
	program = strings.ReplaceAll(program, "127.0.0.1:50051", os.Getenv("TIDINGS_TEST_TARGET"))
	source, binary := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "main")
	if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("the program does not build: %v\n%s", err, out)
	}

	command := exec.CommandContext(t.Context(), binary)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { command.Wait() }) // its context is done then
	task := submit(t, client, &tidingsv1.Event{Type: "demo.task"})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case task.EventId + " TASK_STATE_PENDING":
			move(t, client, task.EventId, tidingsv1.TaskState_TASK_STATE_SUCCEEDED)
		case task.EventId + " TASK_STATE_SUCCEEDED":
			return
		}
	}
	t.Error("the program ended without a word of the task")
}
