package main

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gorilla/websocket"
)

const (
	// channelsMax bounds the channels of the process.
	channelsMax = 100_000
	// sessionChannelsMax is the gateway's default.
	sessionChannelsMax = 256
)

var (
	errSessionFull = fmt.Errorf("at most %d channels for a session", sessionChannelsMax)
	errProcessFull = fmt.Errorf("at most %d channels in all", channelsMax)
	errTooSlow     = errors.New("too slow: more than a queue of events behind")
)

// event is a message that any number of sessions may share; it is never changed.
type event struct {
	text []byte
	// For more than one session: the frame, made once.
	prepared *websocket.PreparedMessage
}

// hub knows who is subscribed to what.
type hub struct {
	queueEvents int
	mutex       sync.Mutex
	channels    map[string]map[*session]struct{}
}

func newHub(queueEvents int) *hub {
	return &hub{queueEvents: queueEvents, channels: make(map[string]map[*session]struct{})}
}

// publish hands an event to all that are subscribed. encode is called only if there is one; nil from it is no event.
func (hub *hub) publish(channel []byte, encode func() []byte) error {
	hub.mutex.Lock()
	defer hub.mutex.Unlock()
	sessions := hub.channels[string(channel)] // The compiler makes no string of it.
	if len(sessions) == 0 {
		return nil
	}
	shared := &event{text: encode()}
	if shared.text == nil {
		return nil
	}
	if len(sessions) > 1 {
		prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, shared.text)
		if err != nil {
			return err
		}
		shared.prepared = prepared
	}
	for session := range sessions {
		if !session.offer(shared) {
			hub.remove(session, string(channel))
			// It ends in its own time, and leaves its other channels then.
			session.closing.Do(func() { go session.close(websocket.ClosePolicyViolation, errTooSlow.Error()) })
		}
	}
	return nil
}

// add subscribes a session to a channel; needs the lock.
func (hub *hub) add(subscriber *session, channel string) error {
	sessions, known := hub.channels[channel]
	if !known {
		if len(hub.channels) == channelsMax {
			return errProcessFull
		}
		sessions = make(map[*session]struct{})
		hub.channels[channel] = sessions
	}
	sessions[subscriber] = struct{}{}
	return nil
}

// remove takes a session from a channel, of which nothing is offered to it afterwards; needs the lock.
func (hub *hub) remove(session *session, channel string) {
	sessions := hub.channels[channel]
	delete(sessions, session)
	if len(sessions) == 0 {
		delete(hub.channels, channel)
	}
}
