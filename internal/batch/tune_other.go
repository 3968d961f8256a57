//go:build !linux

package batch

func preferHugePages() {}
