# Short names for what is done often. `make help` lists them; nothing here is
# needed to build or test: the go command is enough.

.PHONY: help build test race lint generate ci measure-chat measure-idle measure-kills measure-failover measure-durable measure-relay measure-groups measure-geo measure-gossip measure-compression measure-links measure-latency measure-crowd measure-service measure-snapshot measure-rooms sizes clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/edge-node for this machine
	CGO_ENABLED=0 go build -trimpath -o bin/edge-node ./cmd/edge-node

test: ## what the README promises, in under three minutes
	go test ./...

race: ## the tests under the race detector
	go test -race ./...

lint: ## formatting, vet, staticcheck and the schema, as CI does them
	.ci/run format vet lint schema

generate: ## wire/*.pb.go from wire/*.proto
	.ci/generate

ci: ## everything that CI checks
	.ci/run

measure-chat: build ## replay real chat through a mesh of processes: STARLING_DATA=folder
	.ci/measure-chat

measure-idle: build ## memory and processor time of a mesh that does nothing
	.ci/measure-idle

measure-kills: ## kill -9 of processes, 200 rounds, each judged; a quarter of an hour
	.ci/measure-kills

measure-failover: ## from the kill -9 of a leader to the next ack, 50 trials in one region and 50 over three
	.ci/measure-failover

measure-groups: ## what idle groups cost a node: 16, 128 and 1,000 of them
	go test -run '^$$' -bench '^BenchmarkIdle$$' -benchtime 1x -timeout 30m ./consensus

measure-geo: ## coordinates and ways against real round-trip times: STARLING_DATA=folder
	.ci/measure-geo

measure-gossip: ## two hundred nodes gossip: how fast all learn of a join, a crash, a cut: STARLING_DATA=folder; ten minutes
	.ci/measure-gossip

measure-compression: ## how much smaller frames of links become, and at what cost: STARLING_DATA=folder
	.ci/measure-compression

measure-links: ## what a snapshot and a flood of history cost the events on their link; a few minutes
	.ci/measure-links

measure-latency: ## deliveries over twelve regions beside their bounds, copies and bytes: STARLING_DATA=folder; within an hour
	.ci/measure-latency

measure-service: ## drains, renewals and new keys while chat goes on, none noticed: STARLING_DATA=folder; ten minutes
	.ci/measure-service

measure-snapshot: ## a snapshot of 5 GiB in 256 MiB of memory
	.ci/measure-snapshot

measure-rooms: ## a million rooms, a thousand of them active; half an hour, by itself
	.ci/measure-rooms

measure-durable: ## acknowledged messages beside NATS JetStream and bare Raft; five minutes, by itself
	cd bench && go run . durable

measure-crowd: ## what stalled readers, floods, a dead node and hot rooms cost others: STARLING_DATA=folder; an hour, by itself
	.ci/measure-crowd

measure-relay: ## fan-out, memory, rooms and coming back beside NATS, Centrifuge and MQTT brokers; an hour, by itself
	cd bench && for w in fanout "idle --rounds 3" "rooms --rounds 3" reconnect; do go run . $$w || failed=1; done; exit $${failed:-0}

sizes: build ## what each dependency adds to the binary
	.ci/sizes bin/edge-node

clean: ## remove bin/
	rm -rf bin
