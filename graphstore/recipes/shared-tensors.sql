-- Which weight tensors do two graphs have in common, to the last bit?
SELECT a.name AS tensor, b.name AS other_tensor, ga.name AS graph, gb.name AS other_graph, a.n_params AS parameters
FROM tensors AS a
JOIN tensors AS b ON b.sha256 = a.sha256 AND b.graph > a.graph
JOIN graphs AS ga ON ga.id = a.graph
JOIN graphs AS gb ON gb.id = b.graph
WHERE a.n_params > 1
ORDER BY a.n_params DESC, tensor
