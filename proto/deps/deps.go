package deps

import _ "google.golang.org/protobuf/proto"
