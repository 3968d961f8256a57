package online

import (
	"errors"
	"unicode/utf8"

	"github.com/step-plugins/step-revoke-plugin/internal/problem"
)

// maxText is how many characters of a text of the CA are kept.
const maxText = 1000

// hide cuts a text of the CA, and takes secrets out.
func (x exchange) hide(text string) string {
	if utf8.RuneCountInString(text) > maxText {
		text = string([]rune(text)[:maxText]) + "…"
	}
	return problem.Clean(text, x.secret)
}

// clean returns the error with a text that hide has gone over.
func (x exchange) clean(err error) error {
	var bad *badAnswerError
	switch {
	case err == nil, has[*refusal](err), has[*redirectError](err): // which are made of clean texts
		return err
	case errors.As(err, &bad):
		return &badAnswerError{error: x.shown(bad.error)}
	}
	return x.shown(err)
}

func (x exchange) shown(err error) error { return problem.Reword(err, x.hide(err.Error())) }
