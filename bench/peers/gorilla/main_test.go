package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/twmb/franz-go/pkg/kgo"
)

const patience = 10 * time.Second

// serve starts a hub's server on a port of its own.
func serve(t *testing.T, hub *hub) string {
	t.Helper()
	listener, err := listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: routes(hub)}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

func dial(t *testing.T, address string) *websocket.Conn {
	t.Helper()
	client, _, err := websocket.DefaultDialer.Dial("ws://"+address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	client.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() { client.Close() })
	return client
}

func ask(t *testing.T, client *websocket.Conn, text string) string {
	t.Helper()
	if err := client.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return read(t, client)
}

func read(t *testing.T, client *websocket.Conn) string {
	t.Helper()
	_, message, err := client.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return string(message)
}

func publish(t *testing.T, hub *hub, channel, text string) {
	t.Helper()
	if err := hub.publish([]byte(channel), func() []byte { return []byte(text) }); err != nil {
		t.Fatal(err)
	}
}

func (hub *hub) channelCount() int {
	hub.mutex.Lock()
	defer hub.mutex.Unlock()
	return len(hub.channels)
}

func TestTheEnvelopeIsTheGatewaysByteForByte(t *testing.T) {
	encode := func(value []byte) string {
		record := &kgo.Record{Partition: 7, Offset: 12345, Timestamp: time.UnixMilli(1_700_000_000_123), Value: value}
		return string(encodeEvent(record, []byte("BTC.trade")))
	}
	head := `{"seq":12345,"ts":1700000000123,"type":"price:update","priority":1,"channel":"BTC.trade","pos":"7:12345","data":`
	for value, data := range map[string]string{
		"{\"a\" : 1.00,\n \"b\":[null]}": "{\"a\" : 1.00,\n \"b\":[null]}",
		`"\ud800"`:                       `"\ud800"`,
		"":                               `""`,
		`<"q"> \`:                        `"<\"q\"> \\"`,
		"{} {}":                          `"{} {}"`,
	} {
		if got := encode([]byte(value)); got != head+data+"}" {
			t.Errorf("%q: %s", value, got)
		}
	}
	if got := encode(nil); got != head+"null}" {
		t.Errorf("no value: %s", got)
	}
	if got := encode([]byte("\"\xff\"")); got != "" {
		t.Errorf("not UTF-8: %s", got)
	}
}

func TestTheKindOfATopicIsTheGateways(t *testing.T) {
	for topic, kind := range map[string]string{"odin.trades": "trade", "odin.social": "social", "trades": "trade", "a.b.c": "c"} {
		if got := kindOfTopic(topic); got != kind {
			t.Errorf("%s: %s", topic, got)
		}
	}
}

func TestEachSessionGetsWhatItSubscribedToInOrderHoweverManyWait(t *testing.T) {
	hub := newHub(4096)
	address := serve(t, hub)
	one, both := dial(t, address), dial(t, address)
	want := `{"type":"subscription_ack","subscribed":["A.trade"],"count":1}`
	if got := ask(t, one, `{"type":"subscribe","data":{"channels":["A.trade","A.trade"]}}`); got != strings.Replace(want, `]`, `,"A.trade"]`, 1) {
		t.Fatal(got)
	}
	ask(t, both, `{"type":"subscribe","data":{"channels":["A.trade","B.trade"]}}`)
	const count = 2000
	// Longer than a write buffer now and then; B has one subscriber, A two.
	text := func(channel string, number int) string {
		return fmt.Sprintf("%s %d %s", channel, number, strings.Repeat("x", number%7*1000))
	}
	for number := range count {
		publish(t, hub, "A.trade", text("A", number))
		publish(t, hub, "B.trade", text("B", number))
		publish(t, hub, "C.trade", "nobody's")
	}
	for number := range count {
		for _, got := range []struct{ got, want string }{
			{read(t, one), text("A", number)}, {read(t, both), text("A", number)}, {read(t, both), text("B", number)},
		} {
			if got.got != got.want {
				t.Fatalf("%.20q where %.20q was due", got.got, got.want)
			}
		}
	}
	if got := ask(t, one, `{"type":"unsubscribe","data":{"channels":["A.trade"]}}`); got != `{"type":"unsubscription_ack","unsubscribed":["A.trade"],"count":0}` {
		t.Fatal(got)
	}
	publish(t, hub, "A.trade", "last")
	if got := ask(t, one, `{"type":"heartbeat"}`); !strings.HasPrefix(got, `{"type":"pong","ts":`) {
		t.Fatal(got)
	}
	if got := read(t, both); got != "last" {
		t.Fatal(got)
	}
}

// countingConnection takes everything and counts the writes.
type countingConnection struct {
	net.Conn
	writes  int
	written strings.Builder
}

func (connection *countingConnection) Write(frame []byte) (int, error) {
	connection.writes++
	return connection.written.Write(frame)
}

func TestWhatWaitsLeavesInOneWriteAndWhatDoesNotAtOnce(t *testing.T) {
	counting := &countingConnection{}
	socket := &gatheringConnection{Conn: counting}
	socket.Write([]byte("a"))
	if counting.writes != 1 {
		t.Fatal("held back without a gather")
	}
	socket.begin()
	for _, frame := range []string{"b", "c", "d"} {
		socket.Write([]byte(frame))
	}
	if err := socket.flush(); err != nil {
		t.Fatal(err)
	}
	socket.Write([]byte("e"))
	if counting.writes != 3 || counting.written.String() != "abcde" {
		t.Fatal(counting.writes, counting.written.String())
	}
}

func TestAnEventThatNobodyAskedForIsNotEncoded(t *testing.T) {
	err := newHub(16).publish([]byte("A.trade"), func() []byte { panic("encoded") })
	if err != nil {
		t.Fatal(err)
	}
}

func TestASessionThatDoesNotReadIsClosedAndTheOthersGetEverything(t *testing.T) {
	const queueEvents = 64
	hub := newHub(queueEvents)
	address := serve(t, hub)
	stalled, reading := dial(t, address), dial(t, address)
	stalled.NetConn().(*net.TCPConn).SetReadBuffer(4096)
	ask(t, stalled, `{"type":"subscribe","data":{"channels":["A.trade","S.trade"]}}`)
	ask(t, reading, `{"type":"subscribe","data":{"channels":["A.trade"]}}`)
	text := strings.Repeat("x", 64*1024)
	for deadline := time.Now().Add(patience); hub.channelCount() > 1; {
		if time.Now().After(deadline) {
			t.Fatal("the stalled session is still there")
		}
		publish(t, hub, "A.trade", text)
		if got := read(t, reading); got != text {
			t.Fatal("an event came broken")
		}
	}
	if !hub.has("A.trade") {
		t.Fatal("the session that reads was closed, too")
	}
}

func (hub *hub) has(channel string) bool {
	hub.mutex.Lock()
	defer hub.mutex.Unlock()
	return len(hub.channels[channel]) > 0
}

func TestAClientThatIsGoneLeavesItsChannels(t *testing.T) {
	hub := newHub(16)
	client := dial(t, serve(t, hub))
	ask(t, client, `{"type":"subscribe","data":{"channels":["A.trade","B.trade"]}}`)
	client.Close()
	for deadline := time.Now().Add(patience); hub.channelCount() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the channels are still there")
		}
	}
}

func TestWhatIsNoCommandOrNoChannelIsAnswered(t *testing.T) {
	client := dial(t, serve(t, newHub(1024)))
	for text, code := range map[string]string{
		"what?": "not_json", `{"type":7}`: "bad_shape", `{"type":"subscribe","data":{"channels":"A"}}`: "bad_shape", `{"type":"Subscribe"}`: "unknown_type",
	} {
		var got errorMessage
		if err := json.Unmarshal([]byte(ask(t, client, text)), &got); err != nil || got.Type != "error" || got.Code != code {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	channels := []string{"*", "A.*", ".trade", "A.", "A", "A B.trade", strings.Repeat("x", 65) + ".trade"}
	for number := range sessionChannelsMax + 1 {
		channels = append(channels, fmt.Sprintf("T:%d.trade", number))
	}
	names, _ := json.Marshal(channels)
	var ack subscriptionAck
	answer := ask(t, client, fmt.Sprintf(`{"type":"subscribe","data":{"channels":%s}}`, names))
	if err := json.Unmarshal([]byte(answer), &ack); err != nil || ack.Count != sessionChannelsMax || len(ack.Rejected) != 8 {
		t.Errorf("%+v, %v", ack, err)
	}
	if last := ack.Rejected[7]; last.Code != "too_many_channels" {
		t.Errorf("%+v", last)
	}
}

func TestHealthAnswersAndAPingIsAnswered(t *testing.T) {
	address := serve(t, newHub(16))
	response, err := http.Get("http://" + address + "/health")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	response.Body.Close()
	client := dial(t, address)
	answered := ""
	client.SetPongHandler(func(data string) error { answered = data; return nil })
	if err := client.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	ask(t, client, `{"type":"heartbeat"}`)
	if answered != "there?" {
		// The pong may come behind the answer, which another goroutine writes.
		ask(t, client, `{"type":"heartbeat"}`)
	}
	if answered != "there?" {
		t.Fatal("no pong")
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	good := []string{"--brokers", "a:1,b:2", "--queue-events", "64", "--kafka-property", "fetch.wait.max.ms=20"}
	parsed, err := parseArguments(good)
	if err != nil || len(parsed.brokers) != 2 || parsed.queueEvents != 64 || parsed.fetchWait != 20*time.Millisecond {
		t.Fatal(parsed, err)
	}
	for _, words := range [][]string{
		{}, {"--brokers", "a", "x"}, {"--brokers", "a", "--queue-events", "15"}, {"--brokers", "a", "--kafka-property", "group.id=x"}, {"--brokers", "a", "--nonsense"},
	} {
		if _, err := parseArguments(words); err == nil {
			t.Errorf("%q was taken", words)
		}
	}
}
