package tidings_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// running is a client of the service that TIDINGS_TEST_TARGET names. The test is skipped if there is none.
func running(t *testing.T) *tidings.Client {
	t.Helper()
	target := os.Getenv("TIDINGS_TEST_TARGET")
	if target == "" {
		t.Skip("TIDINGS_TEST_TARGET names no running service")
	}
	return dial(t, target)
}

func submit(t *testing.T, client *tidings.Client, event *tidingsv1.Event) *tidingsv1.Event {
	t.Helper()
	event.Status = &tidingsv1.TaskStatus{}
	response, err := client.Events.CreateEvent(t.Context(), &tidingsv1.CreateEventRequest{Event: event})
	if err != nil {
		t.Fatal(err)
	}
	return response.Event
}

func move(t *testing.T, client *tidings.Client, id string, state tidingsv1.TaskState) {
	t.Helper()
	request := &tidingsv1.UpdateTaskStatusRequest{TaskId: id, State: state}
	if _, err := client.Tasks.UpdateTaskStatus(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}

func TestServiceWatchOfOneEvent(t *testing.T) {
	client := running(t)
	task := submit(t, client, &tidingsv1.Event{Type: "go.test"})
	request := &tidingsv1.WatchEventRequest{Scope: &tidingsv1.WatchEventRequest_EventId{EventId: task.EventId}}
	states := []tidingsv1.TaskState{
		tidingsv1.TaskState_TASK_STATE_PENDING, tidingsv1.TaskState_TASK_STATE_RUNNING,
		tidingsv1.TaskState_TASK_STATE_PAUSED, tidingsv1.TaskState_TASK_STATE_RUNNING,
		tidingsv1.TaskState_TASK_STATE_SUCCEEDED,
	}
	var told []tidingsv1.TaskState
	for message, err := range client.Watch(request).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if change := message.GetChange(); change != nil {
			if told = append(told, change.Event.Status.State); len(told) < len(states) {
				move(t, client, task.EventId, states[len(told)])
			}
		}
	}
	if !slices.Equal(told, states) {
		t.Errorf("told %v, want %v", told, states)
	}
}

// A second watch goes on from the token of the first.
func TestServiceWatchFromAToken(t *testing.T) {
	client := running(t)
	kind := "go." + uuid.NewString()
	request := &tidingsv1.WatchEventRequest{
		Scope:  &tidingsv1.WatchEventRequest_Project{Project: &tidingsv1.ProjectScope{}},
		Filter: &tidingsv1.EventFilter{Types: []string{kind}},
	}
	before := submit(t, client, &tidingsv1.Event{Type: kind})
	first := client.Watch(request)
	for message, err := range first.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if message.GetSynced() != nil {
			break
		}
	}
	move(t, client, before.EventId, tidingsv1.TaskState_TASK_STATE_RUNNING)
	after := submit(t, client, &tidingsv1.Event{Type: kind})

	request.Start = &tidingsv1.WatchEventRequest_ResumeToken{ResumeToken: first.ResumeToken()}
	var told []string
	for message, err := range client.Watch(request).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if told = append(told, describe(message)); len(told) == 3 {
			break
		}
	}
	want := []string{"UPDATED " + before.EventId + " 2", "CREATED " + after.EventId + " 1", "synced"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q after the token, want %q", told, want)
	}
}

func TestServiceWatchOfARun(t *testing.T) {
	client := running(t)
	mission, err := client.Missions.CreateMission(t.Context(), &tidingsv1.CreateMissionRequest{
		Mission: &tidingsv1.Mission{Name: "Go test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	run, err := client.Runs.CreateRun(t.Context(), &tidingsv1.CreateRunRequest{
		Run: &tidingsv1.Run{MissionId: mission.Mission.MissionId},
	})
	if err != nil {
		t.Fatal(err)
	}
	var told []tidingsv1.TaskState
	request := &tidingsv1.WatchRunRequest{RunId: run.Run.RunId}
	for message, err := range client.WatchRun(request).All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if change := message.GetChange(); change != nil {
			told = append(told, change.Run.State)
		}
		if message.GetSynced() != nil {
			if _, err := client.Runs.CancelRun(t.Context(), &tidingsv1.CancelRunRequest{RunId: run.Run.RunId}); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []tidingsv1.TaskState{tidingsv1.TaskState_TASK_STATE_PENDING, tidingsv1.TaskState_TASK_STATE_CANCELLED}
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestServiceErrors(t *testing.T) {
	client := running(t)
	var failed *tidings.Error

	unknown := &tidingsv1.WatchEventRequest{Scope: &tidingsv1.WatchEventRequest_EventId{EventId: uuid.NewString()}}
	_, err := collect(t.Context(), client.Watch(unknown))
	if !errors.As(err, &failed) || failed.Reason != tidingsv1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND ||
		failed.Metadata["event_id"] != unknown.GetEventId() {
		t.Errorf("the watch of an unknown event ended with %v", err)
	}

	_, err = client.Events.CreateEvent(t.Context(), &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{EventId: "a/b"}})
	if !errors.As(err, &failed) || failed.Code != codes.InvalidArgument || len(failed.Violations) != 2 {
		t.Errorf("an event with a bad id and no type was answered with %v and %v", err, failed.Violations)
	}
}

// The service takes every mutation with the ids that the client fills in.
func TestServiceTakesTheIDs(t *testing.T) {
	client := running(t)
	task := submit(t, client, &tidingsv1.Event{Type: "go.test"})
	if id, err := uuid.Parse(task.EventId); err != nil || id.Version() != 7 {
		t.Errorf("the event has the id %q, want a UUIDv7", task.EventId)
	}
	event := &tidingsv1.CreateEventRequest{Event: &tidingsv1.Event{Type: "go.test"}}
	batch, err := client.Events.BatchCreateEvents(t.Context(), &tidingsv1.BatchCreateEventsRequest{
		Requests: []*tidingsv1.CreateEventRequest{event, event},
	})
	if err != nil {
		t.Fatal(err)
	}
	if one, other := batch.Results[0].GetEvent(), batch.Results[1].GetEvent(); one.GetEventId() == other.GetEventId() {
		t.Errorf("two events of a batch share the id %q", one.GetEventId())
	}
	update := &tidingsv1.UpdateTaskStatusRequest{TaskId: task.EventId, State: tidingsv1.TaskState_TASK_STATE_RUNNING}
	for completed := range int64(3) { // the request again with other content: another request
		update.Progress = &tidingsv1.TaskProgress{Completed: completed}
		if _, err := client.Tasks.UpdateTaskStatus(t.Context(), update); err != nil {
			t.Fatal(err)
		}
	}
}
