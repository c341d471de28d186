package starling

import (
	"fmt"

	"github.com/starling-im/starling/geo"
)

// maxCosts bounds the prices in a configuration.
const maxCosts = 256

func (c Config) checkCosts() error {
	if len(c.Costs) > maxCosts {
		return &ConfigError{"costs", fmt.Sprintf("are %d, more than %d", len(c.Costs), maxCosts)}
	}
	seen := map[string]bool{}
	for i, cost := range c.Costs {
		field := fmt.Sprintf("costs[%d]", i)
		switch {
		case cost.To == "":
			return &ConfigError{field, "needs to: a node or a region"}
		case seen[cost.To]:
			return &ConfigError{field, fmt.Sprintf("repeats %q", cost.To)}
		case !(cost.Price >= 0 && cost.Price <= geo.MaxPrice):
			return &ConfigError{field, fmt.Sprintf("has the price %v, not 0 to %v", cost.Price, geo.MaxPrice)}
		}
		seen[cost.To] = true
	}
	return nil
}

// price is what a GB costs on this node's link to another, by its configuration.
func (c Config) price(to geo.Site) (price float64) {
	for _, cost := range c.Costs {
		switch cost.To {
		case to.Node:
			return cost.Price
		case to.Region:
			price = cost.Price
		}
	}
	return price
}
