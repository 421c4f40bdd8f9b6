package main

import (
	"math"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	pingInterval = 27 * time.Second
	// quietTimeMax without a pong or a message: three pings.
	quietTimeMax = 3 * pingInterval
	// controlTimeMax is how long a ping or a close waits for a socket that is full.
	controlTimeMax = time.Second
	never          = time.Duration(math.MaxInt64)
)

// session is one client: a goroutine that reads, one that writes, a bounded queue between the hub and the writer.
type session struct {
	hub        *hub
	connection *websocket.Conn
	socket     *gatheringConnection
	queue      chan *event
	// What it is subscribed to. Of the reader alone.
	channels map[string]struct{}
	ping     *time.Timer
	closing  sync.Once
}

func startSession(connection *websocket.Conn, hub *hub) {
	session := &session{
		hub:        hub,
		connection: connection,
		socket:     connection.NetConn().(*gatheringConnection),
		queue:      make(chan *event, hub.queueEvents),
		channels:   make(map[string]struct{}),
	}
	session.ping = time.AfterFunc(never, session.sendPing)
	session.ping.Reset(pingInterval)
	go session.write()
	go session.read()
}

// offer queues an event; false when there is no room. Never after the queue is closed: the reader leaves the hub first.
func (session *session) offer(event *event) bool {
	select {
	case session.queue <- event:
		return true
	default:
		return false
	}
}

// read answers the client until it is gone. How a session ends is the client's to see; nothing is logged for it.
func (session *session) read() {
	connection := session.connection
	connection.SetReadLimit(messageBytesMax)
	stillThere := func(string) error { return connection.SetReadDeadline(time.Now().Add(quietTimeMax)) }
	connection.SetPongHandler(stillThere)
	for stillThere("") == nil {
		// The library answers pings and closes.
		kind, message, err := connection.ReadMessage()
		if err != nil {
			break
		}
		if kind == websocket.TextMessage && !session.handle(message) {
			session.closing.Do(func() { session.close(websocket.ClosePolicyViolation, errTooSlow.Error()) })
			break
		}
	}
	session.hub.mutex.Lock()
	for channel := range session.channels {
		session.hub.remove(session, channel)
	}
	session.hub.mutex.Unlock()
	close(session.queue)
	connection.Close()
	session.ping.Stop()
}

// handle queues the answer; false when there is no room. It keeps the hub's lock, so that no event of a channel is queued before
// the channel's acknowledgement.
func (session *session) handle(message []byte) bool {
	session.hub.mutex.Lock()
	defer session.hub.mutex.Unlock()
	return session.offer(&event{text: session.answer(message)})
}

// write sends what is queued until the queue is closed.
func (session *session) write() {
	for event := range session.queue {
		if session.send(event) != nil {
			break
		}
	}
	session.connection.Close()
	// The reader meets the closed connection; until then nobody may find a full queue.
	for range session.queue {
	}
}

// send sends an event, and with it in one system call what waits behind it.
func (session *session) send(first *event) error {
	waiting := len(session.queue)
	if waiting == 0 {
		return session.sendMessage(first)
	}
	session.socket.begin()
	err := session.sendMessage(first)
	for ; err == nil && waiting > 0 && !session.socket.isFull(); waiting-- {
		// Nobody else takes from the queue; it may be closed, but not before these.
		err = session.sendMessage(<-session.queue)
	}
	if flushed := session.socket.flush(); err == nil {
		err = flushed
	}
	return err
}

func (session *session) sendMessage(event *event) error {
	if event.prepared != nil {
		return session.connection.WritePreparedMessage(event.prepared)
	}
	return session.connection.WriteMessage(websocket.TextMessage, event.text)
}

func (session *session) sendPing() {
	if session.connection.WriteControl(websocket.PingMessage, nil, time.Now().Add(controlTimeMax)) == nil {
		session.ping.Reset(pingInterval)
	}
}

// close tells the client why, if its socket takes it, and ends the session.
func (session *session) close(code int, reason string) {
	message := websocket.FormatCloseMessage(code, reason)
	_ = session.connection.WriteControl(websocket.CloseMessage, message, time.Now().Add(controlTimeMax))
	session.connection.Close()
}
