package main

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// gatherBytesMax is when a gather is sent although more is waiting.
const gatherBytesMax = 64 * 1024

var (
	// bufferPool is what gorilla/websocket takes its write buffers from.
	bufferPool sync.Pool
	gathers    = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// gatheringListener accepts connections that can gather.
type gatheringListener struct{ net.Listener }

// gatheringConnection is a TCP connection whose writes can be gathered into one system call: gorilla/websocket makes one for each
// message, however many are ready.
type gatheringConnection struct {
	net.Conn
	// The writer gathers; whoever answers a ping writes beside it.
	mutex sync.Mutex
	// nil: a write goes to the socket at once.
	gather *bytes.Buffer
	// Whether the socket has a write deadline.
	limited bool
}

func (listener gatheringListener) Accept() (net.Conn, error) {
	connection, err := listener.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gatheringConnection{Conn: connection}, nil
}

// Write implements net.Conn. What is gathered has no error: the flush has.
func (connection *gatheringConnection) Write(frame []byte) (int, error) {
	connection.mutex.Lock()
	if connection.gather != nil {
		defer connection.mutex.Unlock()
		return connection.gather.Write(frame)
	}
	connection.mutex.Unlock()
	return connection.Conn.Write(frame)
}

// SetWriteDeadline implements net.Conn. The library takes the deadline away before each message; where there is none, that is
// spared.
func (connection *gatheringConnection) SetWriteDeadline(deadline time.Time) error {
	connection.mutex.Lock()
	defer connection.mutex.Unlock()
	if deadline.IsZero() && !connection.limited {
		return nil
	}
	connection.limited = !deadline.IsZero()
	return connection.Conn.SetWriteDeadline(deadline)
}

// begin gathers what is written from now on, until flush.
func (connection *gatheringConnection) begin() {
	connection.mutex.Lock()
	defer connection.mutex.Unlock()
	connection.gather = gathers.Get().(*bytes.Buffer)
}

// isFull tells that a flush is due. For the goroutine that gathers.
func (connection *gatheringConnection) isFull() bool {
	connection.mutex.Lock()
	defer connection.mutex.Unlock()
	return connection.gather.Len() >= gatherBytesMax
}

// flush sends what was gathered. The lock is not held meanwhile: a full socket must not block whoever wants to close it.
func (connection *gatheringConnection) flush() error {
	connection.mutex.Lock()
	gather := connection.gather
	connection.gather = nil
	connection.mutex.Unlock()
	_, err := connection.Conn.Write(gather.Bytes())
	gather.Reset()
	gathers.Put(gather)
	return err
}
