// Package ext stands in for Traefik's nested module of this name, which its module zip leaves out.
package ext

// HTTP is the extension point of Traefik's HTTP configuration; the open-source Traefik leaves it empty.
type HTTP struct{}

// Router is the extension point of Traefik's router configuration; the open-source Traefik leaves it empty.
type Router struct{}
