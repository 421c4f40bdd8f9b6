package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	brokerTimeout = 10 * time.Second
	// fetchWaitDefault is librdkafka's.
	fetchWaitDefault = 500 * time.Millisecond
	// envelopeBytesMax is an upper bound of what the envelope adds to a value that is JSON.
	envelopeBytesMax = 256
)

// feed reads every partition of one topic from its end on, without a group, as the gateway does.
type feed struct {
	client *kgo.Client
	kind   string
}

// connect returns when the broker has told where each partition ends.
func connect(ctx context.Context, arguments arguments) (*feed, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(arguments.brokers...),
		kgo.ClientID("odin-bench-peer"),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(arguments.fetchWait),
		// librdkafka's mock cluster answers a newer ApiVersions request with what is no answer. Every later broker takes these versions.
		kgo.MaxVersions(kversion.V2_3_0()),
	)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, arguments.topic)
	if err == nil {
		err = ends.Error()
	}
	if err == nil && len(ends[arguments.topic]) == 0 {
		err = errors.New("the topic has no partitions: create it first")
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	client.AddConsumePartitions(ends.KOffsets())
	return &feed{client: client, kind: kindOfTopic(arguments.topic)}, nil
}

func (feed *feed) close() {
	feed.client.Close()
}

// run publishes what arrives until the client is closed or the context ends. A record without a usable key, or not UTF-8, is
// no event.
func (feed *feed) run(ctx context.Context, hub *hub) error {
	var channel []byte
	for {
		fetches := feed.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return ctx.Err()
		}
		// The client tries again by itself.
		fetches.EachError(func(topic string, partition int32, err error) { log.Printf("%s/%d: %v", topic, partition, err) })
		for records := fetches.RecordIter(); !records.Done(); {
			record := records.Next()
			if !isToken(record.Key) {
				continue
			}
			channel = append(append(append(channel[:0], record.Key...), '.'), feed.kind...)
			if err := hub.publish(channel, func() []byte { return encodeEvent(record, channel) }); err != nil {
				return fmt.Errorf("an event cannot be framed: %w", err)
			}
		}
	}
}

// encodeEvent puts a record into the gateway's envelope, byte for byte the same; nil if its value is not UTF-8.
func encodeEvent(record *kgo.Record, channel []byte) []byte {
	if !utf8.Valid(record.Value) {
		return nil
	}
	text := make([]byte, 0, len(record.Value)+envelopeBytesMax)
	text = append(text, `{"seq":`...)
	text = strconv.AppendInt(text, record.Offset, 10)
	text = append(text, `,"ts":`...)
	text = strconv.AppendInt(text, record.Timestamp.UnixMilli(), 10)
	text = append(text, `,"type":"price:update","priority":1,"channel":"`...)
	text = append(text, channel...)
	text = append(text, `","pos":"`...)
	text = strconv.AppendInt(text, int64(record.Partition), 10)
	text = append(text, ':')
	text = strconv.AppendInt(text, record.Offset, 10)
	text = append(text, `","data":`...)
	switch {
	case record.Value == nil:
		text = append(text, "null"...)
	case json.Valid(record.Value):
		text = append(text, record.Value...)
	default:
		text = append(text, jsonString(record.Value)...)
	}
	return append(text, '}')
}

func jsonString(value []byte) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(string(value)); err != nil {
		panic(fmt.Sprintf("a string is JSON: %v", err))
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}

// kindOfTopic is the gateway's rule.
func kindOfTopic(topic string) string {
	name := strings.TrimPrefix(topic, "odin.")
	if name == "trades" {
		return "trade"
	}
	return name[strings.LastIndexByte(name, '.')+1:]
}
