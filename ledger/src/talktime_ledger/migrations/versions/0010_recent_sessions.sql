-- Once a Project's soft limit is reached, every renewal asks what its last 50 sessions cost, under the locks of all that
-- are renewed together: from their ends backwards, not by sorting all there ever were. Open sessions are not in it, so
-- a renewal writes nothing here.
CREATE INDEX sessions_recent ON sessions (project_id, closed_at DESC) INCLUDE (posted)
  WHERE state = 'closed' AND posted > 0;
