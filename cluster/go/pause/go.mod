module wisp.dev/cluster/go/pause

go 1.26.0
