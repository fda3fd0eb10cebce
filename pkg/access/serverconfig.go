package access

import "fmt"

// MaxPayload is what our servers take in one message: a report that is not large enough for the object
// store, and a dead letter around a message.
const MaxPayload = 8 << 20

// MaxControlLine makes room for a user's token, which the client sends as one line. A server's own default
// of 4 KB is too little for layercache's.
const MaxControlLine = 16 << 10

// ServerConfig writes a configuration for nats-server that knows this installation: operator, accounts (in
// the file, no resolver to run), JetStream in the folder store. TLS and a cluster are for its operator to add.
func (in *Installation) ServerConfig(store string) []byte {
	return fmt.Appendf(nil, `# NATS for Pratique. It believes every user that the account's signing key has signed.
# Add TLS (https://docs.nats.io/running-a-nats-service/configuration/securing_nats/tls) before others reach it.
listen: "0.0.0.0:4222"
max_payload: %d
max_control_line: %d

jetstream {
  store_dir: %q
  # What a power failure may take of a single server; "always" takes nothing and is much slower.
  sync_interval: "1s"
}

operator: %s
system_account: %s
resolver: MEMORY
resolver_preload: {
  # streams and services
  %s: %s
  # subscribers
  %s: %s
  # the server's own
  %s: %s
}
`, MaxPayload, MaxControlLine, store, in.Operator.Token, in.SystemAccount.PublicKey,
		in.Account.PublicKey, in.Account.Token, in.Subscribers.PublicKey, in.Subscribers.Token, in.SystemAccount.PublicKey, in.SystemAccount.Token)
}
