// The broadcaster on gorilla/websocket: a Kafka topic to WebSocket clients, a reader and a writer goroutine per session.
//
// It speaks the gateway's protocol as far as the load generator needs it: `subscribe` to plain channels, its
// acknowledgement, events, `heartbeat`, errors. It deliberately has no resume, no snapshots, no wildcards, no metrics and no
// admission control: all of it would only cost it.
//
// Started with GOMAXPROCS=1 by whoever pins it to one CPU.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

const (
	handshakeTimeMax = 10 * time.Second
	messageBytesMax  = 64 * 1024
	// What clients send is short.
	readBufferBytes = 512
	// Pooled: a session has one only while it writes. An event longer than that would take two writes.
	writeBufferBytes = 4 * 1024
	// TCP_USER_TIMEOUT, which package syscall does not name: a client that takes nothing for so long is gone.
	tcpUserTimeout     = 0x12
	userTimeoutMs      = 30_000
	queueEventsMin     = 16
	queueEventsMax     = 65_536
	queueEventsDefault = 1024
)

// arguments is the command line.
type arguments struct {
	listen      string
	brokers     []string
	topic       string
	queueEvents int
	fetchWait   time.Duration
}

func main() {
	log.SetFlags(0)
	arguments, err := parseArguments(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // The flag package has told what is wrong.
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, arguments); err != nil {
		log.Fatal(err)
	}
}

func parseArguments(words []string) (arguments, error) {
	parsed := arguments{fetchWait: fetchWaitDefault, queueEvents: queueEventsDefault}
	flags := flag.NewFlagSet("peer-gorilla", flag.ContinueOnError)
	flags.StringVar(&parsed.listen, "listen", "127.0.0.1:3100", "`IP:PORT` where clients connect; /health answers 200 there")
	flags.StringVar(&parsed.topic, "topic", "odin.trades", "what is read, all partitions, from its end on")
	flags.Func("brokers", "Kafka's addresses, separated by commas", func(text string) error {
		parsed.brokers = strings.Split(text, ",")
		return nil
	})
	usage := fmt.Sprintf("`events` kept for a session that is slow, which is closed beyond (default %d); their room is made at once", queueEventsDefault)
	flags.Func("queue-events", usage, func(text string) (err error) {
		parsed.queueEvents, err = parseQueueEvents(text)
		return err
	})
	flags.Func("kafka-property", "`NAME=VALUE` as librdkafka names it; fetch.wait.max.ms only", func(text string) (err error) {
		parsed.fetchWait, err = parseProperty(text)
		return err
	})
	if err := flags.Parse(words); err != nil {
		return arguments{}, err
	}
	if flags.NArg() > 0 {
		return arguments{}, refuse(flags, fmt.Sprintf("%q is no flag", flags.Arg(0)))
	}
	if len(parsed.brokers) == 0 {
		return arguments{}, refuse(flags, "--brokers is missing: give HOST:PORT,...")
	}
	return parsed, nil
}

func refuse(flags *flag.FlagSet, reason string) error {
	fmt.Fprintln(flags.Output(), reason)
	flags.Usage()
	return errors.New(reason)
}

func parseQueueEvents(text string) (int, error) {
	events, err := strconv.Atoi(text)
	if err != nil || events < queueEventsMin || events > queueEventsMax {
		return 0, fmt.Errorf("write a number from %d to %d", queueEventsMin, queueEventsMax)
	}
	return events, nil
}

func parseProperty(text string) (time.Duration, error) {
	name, value, _ := strings.Cut(text, "=")
	milliseconds, err := strconv.Atoi(value)
	if name != "fetch.wait.max.ms" || err != nil || milliseconds < 1 || milliseconds > 300_000 {
		return 0, errors.New("write fetch.wait.max.ms=MILLISECONDS, for example fetch.wait.max.ms=5")
	}
	return time.Duration(milliseconds) * time.Millisecond, nil
}

// run connects to Kafka, listens, and serves until the context ends.
func run(ctx context.Context, arguments arguments) error {
	hub := newHub(arguments.queueEvents)
	feed, err := connect(ctx, arguments)
	if err != nil {
		return fmt.Errorf("cannot read %s from %s: %w", arguments.topic, strings.Join(arguments.brokers, ","), err)
	}
	defer feed.close()
	listener, err := listen(ctx, arguments.listen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w: choose another with --listen", arguments.listen, err)
	}
	server := &http.Server{Handler: routes(hub), ReadHeaderTimeout: handshakeTimeMax}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- feed.run(ctx, hub) }()
	select {
	case <-ctx.Done():
		return server.Close()
	case err := <-failed:
		if ctx.Err() != nil {
			return server.Close()
		}
		return err
	}
}

func routes(hub *hub) http.Handler {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeMax,
		ReadBufferSize:   readBufferBytes,
		WriteBufferSize:  writeBufferBytes,
		WriteBufferPool:  &bufferPool,
		CheckOrigin:      func(*http.Request) bool { return true },
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /health", func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Content-Type", "application/json")
		fmt.Fprint(response, `{"status":"healthy"}`)
	})
	routes.HandleFunc("GET /ws", func(response http.ResponseWriter, request *http.Request) {
		// The library has answered when it fails.
		if connection, err := upgrader.Upgrade(response, request, nil); err == nil {
			// On goroutines of its own: what the request took is free when this returns.
			startSession(connection, hub)
		}
	})
	return routes
}

// listen sets what accepted sockets inherit. TCP_NODELAY is Go's default.
func listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		var set error
		err := socket.Control(func(descriptor uintptr) {
			set = syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, tcpUserTimeout, userTimeoutMs)
		})
		return errors.Join(err, set)
	}}
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return gatheringListener{listener}, nil
}
