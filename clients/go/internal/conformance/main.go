// Command conformance watches as a user of the client would and prints what it is told, a JSON object a line, for
// tests that hold the clients of all languages against the same script.
//
//	conformance TARGET STEP...
//	conformance --event-id ID TARGET
//
// The first form plays steps of a scripted service, which says what a step's name makes the request. Reconnects are
// faster than is good for a real service. The second form watches one event of a real service to its end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tidings-dev/tidings/clients/go/internal/pace"
	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// line is what is printed of a delivery or of the end of a watch.
type line struct {
	Step    string `json:"step,omitempty"`
	Deliver string `json:"deliver,omitempty"`
	State   string `json:"state,omitempty"`
	End     string `json:"end,omitempty"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func main() {
	log.SetFlags(0)
	eventID := flag.String("event-id", "", "the event to watch to its end")
	flag.Parse()
	if err := run(*eventID, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(eventID string, arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: conformance TARGET STEP... | conformance --event-id ID TARGET")
	}
	client, err := tidings.New(arguments[0])
	if err != nil {
		return err
	}
	defer client.Close()

	if eventID != "" {
		return watch("", client.Watch(&tidingsv1.WatchEventRequest{
			Scope: &tidingsv1.WatchEventRequest_EventId{EventId: eventID},
		}))
	}
	heartbeat, err := time.ParseDuration(os.Getenv("TIDINGS_HEARTBEAT_SECONDS") + "s")
	if err != nil {
		return fmt.Errorf("TIDINGS_HEARTBEAT_SECONDS: %w", err)
	}
	pace.Slack, pace.Base = 500*time.Millisecond, 10*time.Millisecond
	for _, step := range arguments[1:] {
		if err := play(client, step, durationpb.New(heartbeat)); err != nil {
			return err
		}
	}
	return nil
}

func play(client *tidings.Client, step string, heartbeat *durationpb.Duration) error {
	if strings.HasPrefix(step, "run-") {
		return watch(step, client.WatchRun(&tidingsv1.WatchRunRequest{RunId: step, HeartbeatInterval: heartbeat}))
	}
	request := &tidingsv1.WatchEventRequest{
		Scope:             &tidingsv1.WatchEventRequest_EventId{EventId: step},
		HeartbeatInterval: heartbeat,
	}
	switch {
	case strings.HasPrefix(step, "project-"):
		request.Scope = &tidingsv1.WatchEventRequest_Project{Project: &tidingsv1.ProjectScope{}}
		request.Filter = &tidingsv1.EventFilter{Types: []string{step}}
	case strings.HasPrefix(step, "live-only-"):
		request.Start = &tidingsv1.WatchEventRequest_LiveOnly{LiveOnly: true}
	case strings.HasPrefix(step, "resumed-"):
		request.Start = &tidingsv1.WatchEventRequest_ResumeToken{ResumeToken: "given"}
	case strings.HasPrefix(step, "max-duration-"):
		request.MaxDuration = durationpb.New(2 * time.Second)
	}
	return watch(step, client.Watch(request))
}

func watch[M tidings.Message](step string, watch *tidings.Watch[M]) error {
	for message, err := range watch.All(context.Background()) {
		if err != nil {
			return say(failed(step, err))
		}
		if err := say(delivered(step, message)); err != nil {
			return err
		}
	}
	return say(line{Step: step, End: "complete"})
}

func delivered[M tidings.Message](step string, message M) line {
	switch {
	case message.GetSynced() != nil:
		return line{Step: step, Deliver: "synced"}
	case message.GetReset_() != nil:
		return line{Step: step, Deliver: "reset"}
	case message.GetUnreadable() != nil:
		return line{Step: step, Deliver: "unreadable " + message.GetUnreadable().EventId}
	}
	switch message := any(message).(type) {
	case *tidingsv1.WatchEventResponse:
		change := message.GetChange()
		event := change.GetEvent()
		return changed(step, change.GetKind(), event.GetRevision(), event.GetEventId(), event.GetStatus().GetState())
	case *tidingsv1.WatchRunResponse:
		change := message.GetChange()
		run := change.GetRun()
		return changed(step, change.GetKind(), run.GetRevision(), run.GetRunId(), run.GetState())
	}
	return line{Step: step, Deliver: "what should not be delivered"}
}

func changed(step string, kind tidingsv1.ChangeKind, revision int64, id string, state tidingsv1.TaskState) line {
	return line{
		Step:    step,
		Deliver: fmt.Sprintf("%s %d %s", strings.TrimPrefix(kind.String(), "CHANGE_KIND_"), revision, id),
		State:   strings.TrimPrefix(state.String(), "TASK_STATE_"),
	}
}

func failed(step string, err error) line {
	end := line{Step: step, End: "error", Code: code.Code(status.Code(err)).String()}
	var failure *tidings.Error
	if errors.As(err, &failure) && failure.Reason != tidingsv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		end.Reason = strings.TrimPrefix(failure.Reason.String(), "ERROR_REASON_")
	}
	return end
}

func say(l line) error {
	return json.NewEncoder(os.Stdout).Encode(l)
}
