// Reads a file of Prometheus rules from its input, as Prometheus reads it: expressions, templates of labels and annotations, durations. It
// prints the metrics that the rules ask for, one a line, or says what is wrong.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	promql := parser.NewParser(parser.Options{})
	file, wrong := rulefmt.Parse(text, false, model.LegacyValidation, promql, slog.Default())
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			expr, err := promql.ParseExpr(rule.Expr)
			if err != nil {
				return err
			}
			parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
				if selector, ok := node.(*parser.VectorSelector); ok {
					fmt.Println(selector.Name)
				}
				return nil
			})
		}
	}
	return nil
}
