package tidings

import (
	"container/list"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// memoryMax is how many resources a memory holds outside of a snapshot.
const memoryMax = 10_000

// memory knows what a watch has delivered, so that a snapshot that begins again after a reconnect repeats nothing.
//
// While a snapshot runs it holds all of it; after that the resources that changed last.
type memory struct {
	resources map[string]*list.Element
	order     *list.List // of delivered, the newest first
	snapshot  bool
}

type delivered struct {
	id      string
	version version
}

func newMemory() *memory {
	return &memory{resources: map[string]*list.Element{}, order: list.New(), snapshot: true}
}

// synced ends the snapshot.
func (m *memory) synced() {
	m.snapshot = false
	m.forget()
}

// admit reports whether a version of a resource is newer than what was delivered of it, and remembers it.
func (m *memory) admit(id string, v version) bool {
	element, known := m.resources[id]
	if !known {
		m.resources[id] = m.order.PushFront(delivered{id, v})
		m.forget()
		return true
	}
	last := element.Value.(delivered).version
	if !v.isNewer(last) {
		return false
	}
	if v.created.IsZero() {
		v.created = last.created
	}
	element.Value = delivered{id, v}
	m.order.MoveToFront(element)
	return true
}

func (m *memory) forget() {
	for !m.snapshot && m.order.Len() > memoryMax {
		delete(m.resources, m.order.Remove(m.order.Back()).(delivered).id)
	}
}

// version is the place of a change in the history of its resource.
type version struct {
	created  time.Time // zero in a partial change, which does not say
	revision int64
	gone     bool // an expiry is told at the revision that the resource had
}

type resource interface {
	GetCreateTime() *timestamppb.Timestamp
	GetRevision() int64
}

// changeOf is the identity of what a message says was changed, if it says that.
func changeOf(message any) (id string, v version, ok bool) {
	switch message := message.(type) {
	case *tidingsv1.WatchEventResponse:
		if change := message.GetChange(); change != nil {
			return change.GetEvent().GetEventId(), newVersion(change.GetEvent(), change.Kind), true
		}
	case *tidingsv1.WatchRunResponse:
		if change := message.GetChange(); change != nil {
			return change.GetRun().GetRunId(), newVersion(change.GetRun(), change.Kind), true
		}
	}
	return "", version{}, false
}

func newVersion(r resource, kind tidingsv1.ChangeKind) version {
	v := version{revision: r.GetRevision()}
	if created := r.GetCreateTime(); created != nil {
		v.created = created.AsTime()
	}
	v.gone = kind == tidingsv1.ChangeKind_CHANGE_KIND_DELETED || kind == tidingsv1.ChangeKind_CHANGE_KIND_EXPIRED
	return v
}

func (v version) isNewer(last version) bool {
	switch {
	case !v.created.IsZero() && !last.created.IsZero() && !v.created.Equal(last.created):
		return v.created.After(last.created)
	case v.revision != last.revision:
		return v.revision > last.revision
	default:
		return v.gone && !last.gone
	}
}
