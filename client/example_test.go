package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/starling-im/starling/client"
)

// ticket is how an application gets tokens: here from its environment.
func ticket(context.Context) (string, error) { return os.Getenv("STARLING_TOKEN"), nil }

func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{
		Addrs: []string{"fra.example.org:7400", "iad.example.org:7400"},
		Token: ticket,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	lobby, err := c.Follow(ctx, "lobby", 0)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Publish(ctx, client.Message{Room: "lobby", Content: "hello"}); err != nil {
		log.Fatal(err)
	}
	for e, err := range lobby.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Seq, e.User, e.Content)
	}
}

// A send ends in one of three ways.
func ExampleClient_Publish() {
	c := connect()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	m := client.Message{Room: "lobby", ID: "order-4711", Content: "shipped"}
	ack, err := c.Publish(ctx, m)
	var rejected *client.Rejected
	var unknown *client.Unknown
	switch {
	case err == nil:
		fmt.Println("stored as", ack.Seq)
	case errors.Is(err, client.ErrConflict):
		fmt.Println("another message had this id")
	case errors.As(err, &rejected):
		fmt.Println("it will never be there:", rejected.Err.Code)
	case errors.As(err, &unknown):
		fmt.Println("keep it, and publish it again with the same ID")
	}
}

// Send keeps many messages on their way, in order.
func ExampleClient_Send() {
	c := connect()
	defer c.Close()
	for i := range 1000 {
		c.Send(context.Background(), client.Message{Room: "lobby", Content: fmt.Sprint(i)}, func(a client.Ack, err error) {
			if err != nil {
				log.Print(err)
			}
		})
	}
}

// A program that keeps the seq of the last event goes on where it stopped.
func ExampleClient_Follow() {
	c := connect()
	defer c.Close()
	ctx := context.Background()

	last := uint64(41) // as the program has stored it
	f, err := c.Follow(ctx, "lobby", last)
	var far *client.TooFar
	if errors.As(err, &far) {
		f, err = c.Follow(ctx, "lobby", far.Head) // and page through History up to there
	}
	if err != nil {
		log.Fatal(err)
	}
	for {
		events, err := f.NextBatch(ctx, 100)
		if err != nil {
			log.Fatal(err)
		}
		last = events[len(events)-1].Seq
	}
}

// The whole history of a room, page by page.
func ExampleClient_History() {
	c := connect()
	defer c.Close()
	after := uint64(0)
	for {
		page, err := c.History(context.Background(), "lobby", after, 0, client.Linearizable())
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range page.Events {
			fmt.Println(e.Seq, e.Content)
			after = e.Seq
		}
		if !page.More {
			return
		}
	}
}

func connect() *client.Client {
	c, err := client.Dial(context.Background(), client.Config{Addrs: []string{"localhost:7400"}, Token: ticket})
	if err != nil {
		log.Fatal(err)
	}
	return c
}
