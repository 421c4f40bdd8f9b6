package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	tokenBytesMax = 64
	kindBytesMax  = 32
	// echoBytesMax is the most of a client's text that an answer repeats.
	echoBytesMax = 64
)

// clientMessage is what a client asks for.
type clientMessage struct {
	Type string `json:"type"`
	Data struct {
		Channels []string `json:"channels"`
	} `json:"data"`
}

type subscriptionAck struct {
	Type       string     `json:"type"`
	Subscribed []string   `json:"subscribed"`
	Count      int        `json:"count"`
	Rejected   []rejected `json:"rejected,omitempty"`
}

type rejected struct {
	Channel string `json:"channel"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

type unsubscriptionAck struct {
	Type         string   `json:"type"`
	Unsubscribed []string `json:"unsubscribed"`
	Count        int      `json:"count"`
}

type pong struct {
	Type        string `json:"type"`
	TimestampMs int64  `json:"ts"`
}

type errorMessage struct {
	Type    string `json:"type"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// answer does what a client's text asks for; needs the hub's lock.
func (session *session) answer(text []byte) []byte {
	if !json.Valid(text) {
		return encode(errorMessage{"error", "not_json", "the text is not JSON: send one JSON object per frame"})
	}
	var message clientMessage
	if err := json.Unmarshal(text, &message); err != nil {
		return encode(errorMessage{"error", "bad_shape", `send {"type":"subscribe","data":{"channels":["BTC.trade"]}}`})
	}
	switch message.Type {
	case "subscribe":
		return encode(session.subscribe(message.Data.Channels))
	case "unsubscribe":
		return encode(session.unsubscribe(message.Data.Channels))
	case "heartbeat":
		return encode(pong{"pong", time.Now().UnixMilli()})
	default:
		reason := fmt.Sprintf("the type %q is unknown: send subscribe, unsubscribe or heartbeat", shorten(message.Type))
		return encode(errorMessage{"error", "unknown_type", reason})
	}
}

func (session *session) subscribe(asked []string) subscriptionAck {
	ack := subscriptionAck{Type: "subscription_ack", Subscribed: []string{}}
	for _, channel := range asked {
		code, err := "bad_character", checkChannel(channel)
		if err == nil {
			code, err = "too_many_channels", session.add(channel)
		}
		if err != nil {
			ack.Rejected = append(ack.Rejected, rejected{shorten(channel), code, err.Error()})
			continue
		}
		ack.Subscribed = append(ack.Subscribed, channel)
	}
	ack.Count = len(session.channels)
	return ack
}

func (session *session) add(channel string) error {
	if _, subscribed := session.channels[channel]; subscribed {
		return nil
	}
	if len(session.channels) == sessionChannelsMax {
		return errSessionFull
	}
	if err := session.hub.add(session, channel); err != nil {
		return err
	}
	session.channels[channel] = struct{}{}
	return nil
}

func (session *session) unsubscribe(asked []string) unsubscriptionAck {
	for _, channel := range asked {
		if _, subscribed := session.channels[channel]; subscribed {
			session.hub.remove(session, channel)
			delete(session.channels, channel)
		}
	}
	if asked == nil {
		asked = []string{}
	}
	return unsubscriptionAck{"unsubscription_ack", asked, len(session.channels)}
}

// checkChannel tells what keeps a name from being TOKEN.kind.
func checkChannel(name string) error {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || !isToken([]byte(name[:dot])) || !isKind(name[dot+1:]) {
		return errors.New("the name is no TOKEN.kind of ASCII letters, digits, _ and -: write for example BTC.trade; wildcards are not offered")
	}
	return nil
}

// isToken tells whether a record's key can be the token of a channel.
func isToken(key []byte) bool {
	return len(key) > 0 && len(key) <= tokenBytesMax && !bytes.ContainsFunc(key, func(character rune) bool {
		return !isPlain(character) && !strings.ContainsRune(":/.", character)
	})
}

func isKind(text string) bool {
	return text != "" && len(text) <= kindBytesMax && !strings.ContainsFunc(text, func(character rune) bool { return !isPlain(character) })
}

func isPlain(character rune) bool {
	return 'a' <= character && character <= 'z' || 'A' <= character && character <= 'Z' ||
		'0' <= character && character <= '9' || character == '_' || character == '-'
}

func shorten(text string) string {
	if len(text) <= echoBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:echoBytesMax-3], "") + "..."
}

func encode(message any) []byte {
	text, err := json.Marshal(message)
	if err != nil {
		panic(fmt.Sprintf("the protocol's own types are JSON: %v", err))
	}
	return text
}
