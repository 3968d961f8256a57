// Command kubernetes reads manifests in YAML from standard input into the types of
// Kubernetes, and prints them as JSON, a line each. An unknown field, a field that is
// given twice and a value of another type are errors, as they are for kubectl apply
// --validate=strict.
package main

import (
	"bufio"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	documents "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json" // which takes no field in other case
	"sigs.k8s.io/yaml"
)

func main() {
	if err := convert(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func convert(in io.Reader, out io.Writer) error {
	for read := documents.NewYAMLReader(bufio.NewReader(in)); ; {
		text, err := read.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object, err := decode(text)
		if err != nil {
			return err
		}
		if err := stdjson.NewEncoder(out).Encode(object); err != nil {
			return err
		}
	}
}

func decode(text []byte) (any, error) {
	var kind meta.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	var object any
	switch kind.APIVersion + " " + kind.Kind {
	case "batch/v1 Job":
		object = &batch.Job{}
	case "v1 PersistentVolumeClaim":
		object = &core.PersistentVolumeClaim{}
	default:
		return nil, fmt.Errorf("%s of %s is none of the kinds that are known here", kind.Kind, kind.APIVersion)
	}
	values, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	strict, err := json.UnmarshalStrict(values, object)
	return object, errors.Join(append(strict, err)...)
}
