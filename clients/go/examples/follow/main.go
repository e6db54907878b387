// Command follow submits a task and follows it to its end, while a worker moves it.
//
//	go run ./examples/follow 127.0.0.1:50051
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

const pages = 3

func main() {
	target := "127.0.0.1:50051"
	if len(os.Args) > 1 {
		target = os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := follow(ctx, target, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// follow submits a task at the target and prints what becomes of it.
func follow(ctx context.Context, target string, out io.Writer) error {
	client, err := tidings.New(target)
	if err != nil {
		return err
	}
	defer client.Close()

	submitted, err := client.Events.CreateEvent(ctx, &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{
		Type:    "report.render",
		Summary: "Render the report",
		Status:  &tidingsv1.TaskStatus{}, // what makes it a task
	}})
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		if err := work(ctx, client, submitted.Event); err != nil {
			stop(err)
		}
	}()
	if err := watch(ctx, client, submitted.Event.EventId, out); err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	return nil
}

// watch prints the task's changes until there are no more.
func watch(ctx context.Context, client *tidings.Client, id string, out io.Writer) error {
	request := &tidingsv1.WatchEventRequest{Scope: &tidingsv1.WatchEventRequest_EventId{EventId: id}}
	for message, err := range client.Watch(request).All(ctx) {
		if err != nil {
			return err
		}
		if change := message.GetChange(); change != nil {
			status := change.Event.Status
			fmt.Fprintln(out, status.State, status.Progress.GetCompleted(), "of", status.Progress.GetTotal())
		}
	}
	return nil
}

// work claims the task and does it.
func work(ctx context.Context, client *tidings.Client, task *tidingsv1.Event) error {
	_, err := client.Tasks.UpdateTaskStatus(ctx, &tidingsv1.UpdateTaskStatusRequest{
		TaskId:           task.EventId,
		State:            tidingsv1.TaskState_TASK_STATE_RUNNING,
		ExpectedRevision: task.Revision, // fails if another worker has claimed it
	})
	if err != nil {
		return err
	}
	for page := range int64(pages) {
		_, err := client.Tasks.UpdateTaskStatus(ctx, &tidingsv1.UpdateTaskStatusRequest{
			TaskId:   task.EventId,
			Progress: &tidingsv1.TaskProgress{Completed: page + 1, Total: pages, Unit: "pages"},
		})
		if err != nil {
			return err
		}
	}
	_, err = client.Tasks.UpdateTaskStatus(ctx, &tidingsv1.UpdateTaskStatusRequest{
		TaskId: task.EventId,
		State:  tidingsv1.TaskState_TASK_STATE_SUCCEEDED,
	})
	return err
}
