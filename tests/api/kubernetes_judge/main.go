// Judges CustomResourceDefinitions and objects with Kubernetes' own code, without a cluster: what the API server does between
// reading an object and storing it (pruning, defaulting, structural validation, CEL).
//
// Arguments: CRD files, which are validated first; what is wrong with them goes to stderr, and the exit code is 1.
// stdin: one JSON object a line, {"crd": file, "new": object, "old": object or null}. stdout: a JSON list of problems a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

type object = map[string]any

type definition struct {
	structural *schema.Structural
	structure  validation.SchemaValidator
	rules      *cel.Validator
}

func load(path string) (*definition, field.ErrorList) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	data, err := os.ReadFile(path)
	check(err)
	var external v1.CustomResourceDefinition
	check(yaml.UnmarshalStrict(data, &external))
	scheme.Default(&external)
	var internal apiextensions.CustomResourceDefinition
	check(scheme.Convert(&external, &internal, nil))
	problems := crdvalidation.ValidateCustomResourceDefinition(context.Background(), &internal)
	properties, err := apiextensions.GetSchemaForVersion(&internal, internal.Spec.Versions[0].Name)
	check(err)
	structural, err := schema.NewStructural(properties.OpenAPIV3Schema)
	check(err)
	structure, _, err := validation.NewSchemaValidator(properties.OpenAPIV3Schema)
	check(err)
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	return &definition{structural, structure, rules}, problems
}

// prepare does what the API server does to a request's object, and returns the fields that strict validation refuses.
func (d *definition) prepare(o object) []string {
	options := schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	unknown := pruning.PruneWithOptions(o, d.structural, true, options)
	defaulting.PruneNonNullableNullsWithoutDefaults(o, d.structural)
	defaulting.Default(o, d.structural)
	return unknown
}

func (d *definition) judge(after, before object) []string {
	problems := []string{}
	for _, path := range d.prepare(after) {
		problems = append(problems, path+": unknown field")
	}
	var old any
	if before != nil {
		d.prepare(before)
		old = before
	}
	found := validation.ValidateCustomResource(nil, after, d.structure)
	found = append(found, listtype.ValidateListSetsAndMaps(nil, d.structural, after)...)
	if len(found) == 0 {
		ctx := context.Background()
		found, _ = d.rules.Validate(ctx, nil, d.structural, after, old, celconfig.RuntimeCELCostBudget)
	}
	for _, problem := range found {
		problems = append(problems, problem.Error())
	}
	return problems
}

func main() {
	definitions := map[string]*definition{}
	code := 0
	for _, path := range os.Args[1:] {
		definition, problems := load(path)
		definitions[path] = definition
		for _, problem := range problems {
			fmt.Fprintf(os.Stderr, "%s: %s\n", path, problem)
			code = 1
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var request struct {
			CRD string          `json:"crd"`
			New json.RawMessage `json:"new"`
			Old json.RawMessage `json:"old"`
		}
		check(json.Unmarshal(lines.Bytes(), &request))
		var after, before object
		check(utiljson.Unmarshal(request.New, &after))
		if len(request.Old) > 0 {
			check(utiljson.Unmarshal(request.Old, &before))
		}
		answer, err := json.Marshal(definitions[request.CRD].judge(after, before))
		check(err)
		fmt.Println(string(answer))
	}
	check(lines.Err())
	os.Exit(code)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
