package hook

import (
	"fmt"
	"os/user"
	"strconv"
)

// A User is whom a command runs as.
type User struct {
	Name     string
	Home     string
	UID, GID uint32
	Groups   []uint32
}

// LookupUser finds a user by name, with the groups that it is a member of.
func LookupUser(name string) (*User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user %.80q: %w", name, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %.80q: uid %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %.80q: gid %q: %w", name, u.Gid, err)
	}
	found := &User{Name: u.Username, Home: u.HomeDir, UID: uint32(uid), GID: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %.80q: %w", name, err)
	}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			found.Groups = append(found.Groups, uint32(g))
		}
	}
	return found, nil
}
