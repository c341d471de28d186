package linkframes

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
)

// Sets are recorded chat, apart in what a dictionary is trained on and what it is
// judged by.
type Sets struct {
	Train, TrainDialogues []Record
	// Later are records of the same rooms, years after; Others are rooms that the
	// training has not seen; Dialogues are others in its languages.
	Later, Others, Dialogues []Record
}

// trained are the rooms whose licence lets parts of them be shipped: public domain
// (and CC BY for its collection), CC BY, MIT.
var trained = map[string]bool{"#ubuntu": true, "#duraspace": true, "gitter/gitter": true}

// Of a trained room the records from trainFrom to trainTo of a hundred are trained on,
// and those from laterFrom on are judged by. The first are left for the sample that is
// shipped for tests.
const (
	trainFrom = 5
	trainTo   = 60
	laterFrom = 70
)

// dialogueBlock is how many records of dialogues in a row are on one side.
const dialogueBlock = 500

// Split reads the chat in a folder, chat/chat_irc.jsonl.gz and
// chat/text_multilang.jsonl.gz.
func Split(folder string) (*Sets, error) {
	records, err := ReadFile(filepath.Join(folder, "chat", "chat_irc.jsonl.gz"))
	if err != nil {
		return nil, err
	}
	dialogues, err := ReadFile(filepath.Join(folder, "chat", "text_multilang.jsonl.gz"))
	if err != nil {
		return nil, err
	}
	size, place := map[string]int{}, map[string]int{}
	for _, r := range records {
		size[r.Room]++
	}
	s := new(Sets)
	for _, r := range records {
		at := 100 * place[r.Room] / size[r.Room]
		place[r.Room]++
		switch {
		case !trained[r.Room]:
			s.Others = append(s.Others, r)
		case at >= trainFrom && at < trainTo:
			s.Train = append(s.Train, unnamed(r))
		case at >= laterFrom:
			s.Later = append(s.Later, r)
		}
	}
	for i, r := range dialogues {
		if i/dialogueBlock%2 == 0 {
			s.TrainDialogues = append(s.TrainDialogues, unnamed(r))
		} else {
			s.Dialogues = append(s.Dialogues, r)
		}
	}
	return s, nil
}

// unnamed takes the sender's name away, which is nobody else's business.
func unnamed(r Record) Record {
	h := fnv.New32a()
	h.Write([]byte(r.From))
	r.From = fmt.Sprintf("%07x", h.Sum32()>>4)
	return r
}
